// SPDX-License-Identifier: MIT
// Which rows of a KV cache to keep: observations, methods, plans and the registry of methods.
// Standard types only; nothing here knows about ggml. All functions are reentrant; a Method is immutable after
// make_method() and may be used from several threads at once.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "kvsieve/kv_cache.h"

namespace kvsieve {

/// How the model rotates queries and keys, for methods that look ahead. One set for all layers.
struct RopeShape {
    std::vector<float> freqs = {};  ///< [m], m <= d / 2, radians per position of rotated pair i; dims from 2m on stay
    bool interleaved = false;       ///< pair i is dims (2i, 2i + 1); else (i, i + m)
};

/// What stays the same over all layers of one prompt.
struct PromptShape {
    int32_t n_layer = 0;
    int32_t n_head = 0;                     ///< query heads, H
    int32_t n_head_kv = 0;                  ///< KV heads, G; query head h reads KV head h / (H / G)
    int32_t head_dim = 0;                   ///< d; 0 where keys and values are not observed
    int32_t n_tokens = 0;                   ///< prompt tokens, T; positions 0 .. T-1
    std::vector<uint8_t> visual_mask = {};  ///< [T], 1 = visual token; empty = no visual token
    RopeShape rope = {};                    ///< empty where queries are not observed
    int32_t next_position = -1;             ///< of the first new token; -1 = T (M-RoPE counts otherwise)
};

/// Which prompt queries' attention rows a method wants to see.
enum class RowsWanted {
    none,
    last_window,        ///< the last `Traits::window` prompt tokens
    text_after_visual,  ///< every token behind the last visual token
};

/// What a method observes and promises. The engine computes nothing that no trait asks for.
struct Traits {
    bool importance = false;  ///< [T], column sums of softmax attention, mean over query heads
    bool colsum = false;      ///< [H, T], the same per query head
    RowsWanted rows = RowsWanted::none;
    int32_t window = 0;   ///< for RowsWanted::last_window
    bool keys = false;    ///< [G, T, d], as cached (after RoPE, before any cache rotation)
    bool values = false;  ///< [G, T, d]
    /// Mean and covariance of the queries before RoPE over positions n_sink .. T-1.
    bool query_stats = false;
    int32_t n_sink = 0;
    /// What probe queries, moved behind the prompt, attend to, and how large the heads' values are behind the output
    /// projection: probe_mean, probe_square, output_norm. Probes are the model's (ModelOptions::probes), else the
    /// prompt's own last queries, of those behind its last image where there are any.
    bool probes = false;
    int32_t n_queries = 0;  ///< the last so many queries before RoPE (last_queries)
    /// K > 0: only layer K-1 is observed, and the tokens that plan_layer(prompt, K, score of layer K-1) drops leave
    /// the prefill before layer K, which has the same plan as all deeper ones (FastV). Layers below K keep everything.
    int32_t prune_layer = 0;
    bool merges = false;     ///< plans merge dropped rows into kept ones (LayerPlan::merged)
    bool per_head = false;   ///< plans hold one set per KV head instead of one per layer
    bool row_types = false;  ///< plans choose the row type of every list of rows; the cache must be f16
    bool layerwise = false;  ///< a layer's plan depends on that layer only: it can be compacted at once
    bool visual = false;     ///< refuses a prompt without visual tokens
    bool modality = false;   ///< the plan depends on which tokens are visual
    bool evicts_while_decoding = false;
};

/// What a method may look at of one layer. Arrays that the traits do not ask for may be empty; a method that
/// finds one missing that it needs throws Error{bad_input} naming it. Spans stay valid during the call only.
class LayerObservation {
  public:
    virtual ~LayerObservation() = default;
    std::span<const float> importance;  ///< [T]
    std::span<const float> colsum;      ///< [H, T]
    std::span<const float> keys;        ///< [G, T, d]
    std::span<const float> values;      ///< [G, T, d]
    std::span<const float> query_mean;  ///< [H, d], of the queries before RoPE at positions n_sink .. T-1
    std::span<const float> query_cov;   ///< [H, d, d], divisor T - n_sink
    std::span<const float> queries;     ///< [H, T, d], before RoPE; from dumps only, counts before the two above
    /// Attention that the probe queries of a head pay to the prompt's keys: mean and mean square over the probes.
    std::span<const float> probe_mean;    ///< [H, T]
    std::span<const float> probe_square;  ///< [H, T]
    std::span<const float> output_norm;   ///< [H, T], norm of v W_o: the value behind the head's output projection
    std::span<const float> last_queries;  ///< [n, H, d], n = min(n_queries, T), before RoPE
    /// Positions whose attention rows can be asked for, ascending.
    std::span<const int32_t> row_positions;
    /// Softmax rows [H, n, T] (causal: 0 behind the query) of the given positions, a subset of `row_positions`.
    /// Cost: one attention pass over the asked rows. Callers ask in blocks to bound memory.
    virtual void rows(std::span<const int32_t> positions, std::vector<float> & out) const = 0;
};

/// Named extra results that a method states beside the kept positions (thresholds, weights, ...).
/// Per-layer lists have one entry per layer.
using PlanExtra = std::variant<double, bool, int64_t, std::vector<int32_t>, std::vector<double>,
                               std::vector<std::vector<int32_t>>, std::vector<std::vector<double>>>;

/// What a scorer makes of one layer, all that is kept of an observation.
struct LayerScore {
    /// [n_set, T] with n_set = 1 (one set for all heads) or G; higher is kept longer. May be empty.
    std::vector<double> score;
    /// Named scalars and lists of the layer (strength, skew, elite, ...), which allocators read.
    std::map<std::string, PlanExtra> stats = {};
};

/// A dropped row that becomes part of a kept one.
struct Merge {
    int32_t from;  ///< dropped position
    int32_t into;  ///< kept position
    [[nodiscard]] bool operator==(const Merge &) const = default;
};

/// Kept positions of one layer: one ascending list for all KV heads, or one per KV head.
struct LayerPlan {
    std::vector<std::vector<int32_t>> kept;  ///< [1 or G][n_kept], ascending, unique
    /// By ascending `from`, for all KV heads. Key and value of `into` become the plain mean over itself and all rows
    /// merged into it.
    std::vector<Merge> merged = {};
    /// Row types, [1 or G]; empty: the type of the cache. Rows come as f16 and are quantised once.
    std::vector<KvType> types = {};
    [[nodiscard]] KvType type_of_head(int32_t g) const {
        return types.size() == 1 ? types[0] : types[static_cast<size_t>(g)];
    }
    [[nodiscard]] const std::vector<int32_t> & of_head(int32_t g) const {
        return kept.size() == 1 ? kept[0] : kept[static_cast<size_t>(g)];
    }
    [[nodiscard]] bool operator==(const LayerPlan &) const = default;
};

/// Eviction of one layer while decoding (METHODS 1.5, PrefixKV's rule). After the forward pass of the token
/// that makes N processed tokens, with s rows in the layer: evict one row at `drop_slot` if
/// n_over(s, N) > 0. Slots are logical: what stands behind the slot moves up.
struct DecodeRule {
    double rho = 0.0;       ///< share of the processed tokens that the layer forgets
    int32_t drop_slot = 0;  ///< 0-based slot, fixed once
    /// trunc(max(0, s - N * (1 - rho)))
    [[nodiscard]] int64_t n_over(int64_t n_rows, int64_t n_processed) const;
};

/// Which rows survive, and what happens while decoding.
struct Plan {
    std::vector<LayerPlan> layers;           ///< [L]
    std::vector<DecodeRule> decode;          ///< [L], or empty: nothing is evicted while decoding
    std::map<std::string, PlanExtra> extra;  ///< what the method adds, named as in the golden cases
    bool keeps_everything = false;
    bool per_head = false;  ///< the lists are those of single KV heads, even where there is only one
};

/// Per-layer budgets computed offline (PrefixKV's published configuration: the forgotten fraction per layer).
struct Profile {
    std::vector<double> forget;          ///< [L], each in [0, 1)
    std::string model_fingerprint = {};  ///< empty: not known (a bare list as published)
    std::string method = "prefixkv";
};

/// One parameter of a method.
struct ParamSpec {
    std::string name;
    std::string help;
    std::variant<double, std::string> def;  ///< default; a number or one of `choices`
    double min = 0, max = 0;                ///< range of a number, inclusive
    bool integer = false;
    bool odd = false;                       ///< an odd integer
    std::vector<std::string> choices = {};  ///< not empty: a word
};

/// What the caller asks of a method. `params` are strings as typed; make_method() checks them.
struct MethodOptions {
    double keep = 1.0;  ///< fraction of KV entries kept, in (0, 1]; MethodInfo::keep_of says of which
    std::map<std::string, std::string> params = {};
    std::optional<Profile> profile = std::nullopt;  ///< excludes keep
    uint64_t seed = 0;
    int32_t n_threads = 1;  ///< that plan() may use, at least 1; the plan does not depend on it
};

/// A compression method with its parameters bound.
class Method {
  public:
    virtual ~Method() = default;
    [[nodiscard]] virtual const Traits & traits() const = 0;
    /// Throws Error if the method cannot work on such a prompt (no visual token, no text behind the image, a
    /// window longer than the prompt, a profile of another number of layers).
    virtual void check(const PromptShape & prompt) const = 0;
    /// Scores one layer. Called once per layer, in any order.
    [[nodiscard]] virtual LayerScore score(const PromptShape & prompt, int32_t il,
                                           const LayerObservation & obs) const = 0;
    /// The plan of one layer, for methods whose traits say `layerwise` (same result as in plan()).
    [[nodiscard]] virtual LayerPlan plan_layer(const PromptShape & prompt, int32_t il,
                                               const LayerScore & score) const = 0;
    /// The plan from all layers' scores, [L].
    [[nodiscard]] virtual Plan plan(const PromptShape & prompt, std::span<const LayerScore> scores) const = 0;
    /// plan_cost() of plan(); methods that can count without choosing do.
    [[nodiscard]] virtual int64_t count_rows(const PromptShape & prompt, std::span<const LayerScore> scores) const;
};

/// Rows that a plan keeps, summed over layers and KV heads; where it chooses row types, so many f16 rows as take the
/// same bytes (rounded up).
[[nodiscard]] int64_t plan_cost(const PromptShape & prompt, const Plan & plan);

/// A row of the registry.
struct MethodInfo {
    std::string_view name;
    std::string_view paper;    ///< "arXiv 2412.03409", or "" for a baseline
    std::string_view summary;  ///< one sentence
    std::string_view section;  ///< of docs/methods.md
    std::string_view keep_of;  ///< "all rows" or "visual rows"; "" for a method that takes no keep
    Traits traits = {};        ///< with default parameters
    bool takes_profile = false;
    std::vector<ParamSpec> params = {};
    std::function<std::unique_ptr<Method>(const MethodOptions &)> make = nullptr;
};

/// All methods, in the order of the documentation.
[[nodiscard]] std::span<const MethodInfo> methods();
/// The row of a method, or of a composition "SCORER+ALLOCATOR" (see scorers() and allocators()). Throws
/// Error{invalid_argument} that lists the known names, or that says why the pair makes no sense.
[[nodiscard]] const MethodInfo & method_info(std::string_view name);
/// Checks keep, parameters and profile against the method's row and binds them. The name may be a composition.
[[nodiscard]] std::unique_ptr<Method> make_method(std::string_view name, const MethodOptions & options);

/// A part that compositions are made of: name, one sentence, parameters.
struct PartInfo {
    std::string_view name;
    std::string_view summary;
    std::vector<ParamSpec> params = {};
};
[[nodiscard]] std::span<const PartInfo> scorers();
[[nodiscard]] std::span<const PartInfo> allocators();
/// "SCORER+ALLOCATOR", a name for method_info() and make_method(). Throws Error{invalid_argument} for an unknown part
/// and, with the reason in one sentence, for a pair that makes no sense.
[[nodiscard]] std::string composition_name(std::string_view scorer, std::string_view allocator);

/// The largest keep that a cap on the rows allows.
struct RowFit {
    MethodOptions options;  ///< as given, with `keep` set; make_method(name, options) makes the plan
    int64_t n_rows = 0;     ///< that the plan keeps, summed over layers and KV heads
    Plan plan = {};         ///< empty where no scores were given
};
/// Finds the largest keep (to 1e-9) whose plan holds at most `max_rows` rows, summed over layers and KV heads; the
/// keep of `options` does not matter. A method that takes no keep, or a profile, must fit as it is. `scores` are those
/// of the prompt ([L], all from this method; they do not depend on keep). They may be empty where the number of rows
/// does not depend on them, which is so for every `layerwise` method and for Traits::prune_layer: then the fit is
/// known before the prefill begins. Deterministic.
/// Throws Error{invalid_argument} that states the smallest plan if none fits.
[[nodiscard]] RowFit fit_rows(std::string_view name, const MethodOptions & options, const PromptShape & prompt,
                              std::span<const LayerScore> scores, int64_t max_rows);

/// Rows that the method keeps of such a prompt, summed over layers and KV heads, where that does not depend on what is
/// observed: for every `layerwise` method and for Traits::prune_layer. None elsewhere.
[[nodiscard]] std::optional<int64_t> count_rows_beforehand(const Method & method, const PromptShape & prompt);

/// One simulated eviction while decoding: at generated token `step` (1 = the first, at position T) the entry
/// at `position` left.
struct DecodeRemoval {
    int32_t step;
    int32_t position;
};
struct DecodeTrace {
    std::vector<std::vector<DecodeRemoval>> removed;  ///< [L]
    std::vector<int32_t> final_len;                   ///< [L]
};
/// Plays `n_steps` generated tokens against a plan's decode rule.
[[nodiscard]] DecodeTrace simulate_decode(const Plan & plan, int32_t n_tokens, int32_t n_steps);

}  // namespace kvsieve
