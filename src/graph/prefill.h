// SPDX-License-Identifier: MIT
// Prefill, layer by layer over the whole prompt, with observation and compaction on the way.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "cache/ragged_kv_cache.h"
#include "graph/arch.h"
#include "graph/probes.h"
#include "kvsieve/policy.h"

namespace kvsieve {

/// Times of a prefill in milliseconds; `compute_ms` has the capture of what the method observes in it.
struct PrefillTimes {
    double compute_ms = 0;
    double plan_ms = 0;     ///< scores, budgets, selection
    double compact_ms = 0;  ///< storing, quantising and moving rows
};

/// Makes the plan when all layers are scored, in place of Method::plan().
using Planner = std::function<Plan(const PromptShape &, std::span<const LayerScore>)>;

/// Is shown the residual stream [n_alive][n_embd] before each layer.
using ResidualObserver = std::function<void(int32_t il, std::span<const float> residual)>;

/// A resumable prefill: every step() does one part of the work, at most half of a layer for one chunk of tokens;
/// between steps the caller may do other work, or drop the object to cancel. What a method does not ask for is not
/// computed.
/// With Traits::prune_layer the tokens that its plan drops leave the residual stream there; only the last token stays,
/// for its logits, even where its own row is dropped. Not thread-safe.
class Prefill {
  public:
    /// `residual` [n_tokens][n_embd] holds the embeddings of the prompt and is consumed. `observe` = false: the
    /// method is not asked and everything is kept. The cache must be empty; all references must outlive this.
    /// `planner` for methods that need all layers' scores; without it the method plans. The shape gets what the
    /// method's traits ask for beside it (rope). `source` for Traits::probes, which cannot be observed without its
    /// factors. Throws the method's refusal of such a prompt.
    Prefill(GraphRunner & runner, const Decoder & decoder, RaggedKvCache & cache, const Method & method,
            PromptShape shape, std::vector<float> residual, bool observe, Planner planner = {},
            const ProbeSource & source = {});
    ~Prefill();
    Prefill(const Prefill &) = delete;
    Prefill & operator=(const Prefill &) = delete;

    /// Goes on before layer Traits::prune_layer, for a method that prunes there: `residual` is the stream at that
    /// place, `score` that of the layer before, and the cache holds all rows of the layers before.
    Prefill(GraphRunner & runner, const Decoder & decoder, RaggedKvCache & cache, const Method & method,
            PromptShape shape, std::vector<float> residual, const LayerScore & score);

    void on_residual(ResidualObserver observer);
    /// false: attention by ggml's operations, the reference. To be called before the first step().
    void use_attention_kernel(bool yes);

    /// Does one part; false when the prefill is complete. On an Error the cache must be released.
    bool step();
    /// Does the next part end within `limit_ms`, or within what the longest part takes anyway, if `spent_ms` are gone?
    /// A part is expected to take as long as the last one of its kind.
    [[nodiscard]] bool next_fits(double spent_ms, double limit_ms) const;
    [[nodiscard]] bool done() const;
    [[nodiscard]] double progress() const;  ///< 0..1

    /// After the end: the plan that the cache now follows, and the last token's logits [n_vocab].
    [[nodiscard]] Plan take_plan();
    [[nodiscard]] std::vector<float> take_logits();
    /// As given, with what the method's traits ask for.
    [[nodiscard]] const PromptShape & shape() const;
    [[nodiscard]] const PrefillTimes & times() const;
    /// Bytes of the keys and values of the layer in work.
    [[nodiscard]] uint64_t layer_kv_bytes() const;
    /// Most bytes of KV rows at one time: the cache's arenas and the layer in work.
    [[nodiscard]] uint64_t peak_kv_bytes() const;
    /// Most bytes beside KV rows and graph buffers: residual stream, a chunk's heads, sums, saved queries.
    [[nodiscard]] uint64_t buffer_bytes() const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace kvsieve
