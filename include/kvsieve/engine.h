// SPDX-License-Identifier: MIT
// Models and sessions: an image and a question in, an answer out, from a KV cache that a method compressed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kvsieve/kv_cache.h"
#include "kvsieve/policy.h"

namespace kvsieve {

struct ModelOptions {
    std::filesystem::path model;                  ///< GGUF of the language model
    std::optional<std::filesystem::path> mmproj;  ///< GGUF of the vision encoder; without it text only
    int32_t n_threads = 0;                        ///< 0 = one per core of the machine
    /// Probe queries recorded with this model (kvsieve profile --method sieve); without them, methods that observe
    /// probes take the prompt's own last queries, behind its last image.
    std::optional<std::filesystem::path> probes = std::nullopt;
    /// Copies quantised matrices into the layout that this processor multiplies fastest, as llama.cpp does; the file's
    /// pages are let go. Off: every weight is read where it lies in the file.
    bool repack = true;
};

/// What a model's metadata says.
struct ModelInfo {
    std::string name;
    std::string architecture;
    std::string fingerprint;         ///< of metadata and weights; profiles are bound to it
    std::string vision_fingerprint;  ///< of the vision encoder; empty without one
    std::string probes_fingerprint;  ///< of the probe queries; empty without any
    int32_t n_layer = 0;
    int32_t n_embd = 0;
    int32_t n_head = 0;
    int32_t n_head_kv = 0;
    int32_t head_dim = 0;
    int32_t n_ff = 0;
    int32_t n_vocab = 0;
    int32_t n_ctx_train = 0;
    uint64_t weight_bytes = 0;  ///< of the language model's tensors
    uint64_t packed_bytes = 0;  ///< of the copies of matrices in the processor's layout
    bool has_vision = false;
    int32_t n_probe = 0;       ///< probe queries per layer and head; 0 = the model came without any
    bool uses_probes = false;  ///< false too where they stand for so few answer tokens that sieve does without them
};

/// The model pair that comes with kvsieve: `KVSIEVE_MODELS`, else share/kvsieve/models beside the program, else
/// models/ of the source tree that the program was built in. Throws Error{bad_input} that names the places.
[[nodiscard]] ModelOptions embedded_model();

/// A loaded model: memory-mapped weights, vocabulary, vision encoder. Immutable after load(); sessions share it.
/// Sessions of one model may run in different threads; image encoding is serialised inside.
class Model {
  public:
    /// Validates both files before upstream sees them. Throws Error{bad_input}.
    [[nodiscard]] static std::shared_ptr<const Model> load(const ModelOptions & options);
    ~Model();
    Model(const Model &) = delete;
    Model & operator=(const Model &) = delete;
    [[nodiscard]] const ModelInfo & info() const;
    [[nodiscard]] std::vector<int32_t> tokenize(const std::string & text, bool add_special, bool parse_special) const;
    /// Bytes of one token; may be part of a UTF-8 sequence.
    [[nodiscard]] std::string token_text(int32_t token) const;
    [[nodiscard]] bool is_end_of_generation(int32_t token) const;

    struct Impl;
    [[nodiscard]] const Impl & impl() const { return *impl_; }

  private:
    explicit Model(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

struct SamplingOptions {
    float temp = 0.0F;  ///< 0 = greedy
    int32_t top_k = 40;
    float top_p = 0.95F;
    float min_p = 0.05F;
    uint32_t seed = 0;
    std::string grammar;  ///< GBNF; empty = none
};

struct GenerateOptions {
    int32_t n_predict = 256;        ///< at most so many new tokens
    std::vector<std::string> stop;  ///< texts that end the answer (not part of it)
    SamplingOptions sampling;
};

/// One message of the user. `<image>` in the text marks an image's place, in order; without any mark all images
/// stand before the text.
struct Turn {
    std::string text;
    std::vector<std::filesystem::path> images;
};

enum class Phase { vision, prefill, plan, compact, decode };

struct Callbacks {
    /// Complete UTF-8 pieces of the answer as they come.
    std::function<void(std::string_view)> on_text;
    /// Progress of long work, 0..1.
    std::function<void(Phase, double)> on_progress;
    /// Asked between layers, chunks and tokens; true ends the call with Error{cancelled}.
    std::function<bool()> is_cancelled;
};

struct ProbeData;  // of the engine's own

struct SessionOptions {
    std::string method = "full";
    MethodOptions method_options;
    KvType kv_type = KvType::f16;
    bool kv_rot = true;  ///< rotate quantised rows (Hadamard)
    /// Attention of the first prompt and of single new tokens by kvsieve's own kernels; false: by ggml's operations,
    /// the reference.
    bool attention_kernel = true;
    int32_t n_ctx = 0;          ///< most positions of the conversation; 0 = the model's context
    std::string system;         ///< system message; empty = none
    std::string chat_template;  ///< "" = the model's own, a name that libllama knows, or "raw" or "none" for none
    /// Hard caps on the rows of the first prompt, 0 = none. The largest keep whose plan fits all of them takes the
    /// place of method_options.keep (Session::method_options() tells it); where none fits the prompt is refused with
    /// Error{invalid_argument}.
    int64_t kv_tokens = 0;  ///< rows of a KV head, on average over all heads and layers
    double kv_share = 0.0;  ///< bytes of the rows in `kv_type`, as a share of those of all rows in f16
    /// Bytes of the rows in `kv_type`; holds for the whole conversation. The rows of n_predict tokens are reserved
    /// (not with a decode policy, which has a cap of its own), and an answer that meets the cap all the same ends
    /// there: FinishReason::kv_budget.
    uint64_t kv_bytes = 0;
    std::string decode_policy = "default";  ///< see decode_policies()
    int32_t decode_cap = 0;                 ///< rows per set, for policies that take one
    /// Observes, plans and compacts also where keep = 1 makes the outcome known beforehand. The result is the same
    /// bit for bit; tests show it.
    bool force_compaction = false;
    /// Probe queries in place of the model's, recorded with the same model.
    std::shared_ptr<const ProbeData> probes = nullptr;
};

enum class FinishReason { end_of_generation, stop_text, length, context, kv_budget };
[[nodiscard]] std::string_view finish_reason_name(FinishReason reason) noexcept;

/// Where an image stands in the prompt.
struct ImagePlace {
    std::string name;
    int32_t first_position = 0;
    int32_t n_tokens = 0;
    int32_t nx = 0, ny = 0;  ///< token grid; nx = n_tokens, ny = 1 where it is not known
    bool grid_known = false;
};

/// Times of one turn in milliseconds.
struct Timings {
    double vision_ms = 0;   ///< image encoding
    double prefill_ms = 0;  ///< all layers, with observation
    double plan_ms = 0;     ///< scores, budgets, selection
    double compact_ms = 0;
    double decode_ms = 0;
    int32_t n_decoded = 0;  ///< forward passes counted in decode_ms
};

struct Answer {
    std::string text;
    std::vector<int32_t> tokens;
    FinishReason finish = FinishReason::length;
    int32_t n_prompt = 0;  ///< tokens of this turn's prompt
    int32_t n_text = 0;
    int32_t n_visual = 0;
    Timings timings;
};

class ProbeRecorder;  // of the engine's own

/// One conversation: one sequence with its own cache. The method compresses the cache once, after the first
/// turn's prompt; later turns go on from what is left, at their true positions. Not thread-safe.
class Session {
  public:
    Session(std::shared_ptr<const Model> model, SessionOptions options);
    /// The same with a method of the caller's own; options.method and method_options are not used, and caps on the
    /// prompt's rows are refused.
    Session(std::shared_ptr<const Model> model, SessionOptions options, std::shared_ptr<const Method> method);
    ~Session();
    Session(Session &&) noexcept;
    Session & operator=(Session &&) noexcept;

    /// Encodes the turn, prefills (first turn) or extends (later turns), and answers.
    /// On an Error before the first token of the answer the session is as it was before the call. Cancelled later, the
    /// turn ends there: what was said so far belongs to the conversation.
    Answer ask(const Turn & turn, const GenerateOptions & options, const Callbacks & callbacks = {});

    /// Answers what was fed last; the answer's counts of prompt tokens stay 0.
    Answer generate(const GenerateOptions & options, const Callbacks & callbacks = {});

    /// Low level, for evaluation and tests. Prefills text tokens (first call) or extends the cache by them;
    /// returns the last position's logits, [n_vocab], valid until the next call.
    std::span<const float> feed(std::span<const int32_t> tokens);
    /// The same; methods take the tokens whose mask is not 0 for visual ones. `visual_mask` is as long as `tokens`.
    std::span<const float> feed(std::span<const int32_t> tokens, std::span<const uint8_t> visual_mask);
    /// The same for a turn of text and images, without generating. `render` = false takes the text as it is.
    std::span<const float> feed(const Turn & turn, bool render, const Callbacks & callbacks = {});

    /// A second session in the same state, right behind the first prompt. Costs the bytes held. Throws
    /// Error{invalid_argument} elsewhere.
    [[nodiscard]] Session fork() const;

    /// The last position's logits, [n_vocab], as feed() returned them; empty before the first prompt.
    [[nodiscard]] std::span<const float> logits() const;

    /// Everything back to the start; memory is given back.
    void reset();

    [[nodiscard]] int32_t n_processed() const;  ///< positions used so far
    [[nodiscard]] const Plan * plan() const;    ///< nullptr before the first prompt
    [[nodiscard]] const PromptShape & prompt_shape() const;
    /// As given, with the keep that caps on the rows led to.
    [[nodiscard]] const MethodOptions & method_options() const;
    [[nodiscard]] const std::vector<ImagePlace> & images() const;
    [[nodiscard]] KvUsage usage() const;
    /// Rows reserved at the highest point of the first prefill, in bytes (cache and scratch apart).
    [[nodiscard]] uint64_t peak_kv_bytes() const;
    [[nodiscard]] uint64_t scratch_bytes() const;  ///< working memory of graphs at its highest
    /// Original positions of the rows held, physical order.
    [[nodiscard]] std::vector<int32_t> positions(int32_t il, int32_t head_kv) const;
    /// Timings of the last call.
    [[nodiscard]] const Timings & timings() const;

    struct Impl;  // of the engine's own

  private:
    friend class BatchEngine;
    friend class SharedPrefill;
    friend class ProbeRecorder;
    friend void feed_batch(std::span<Session * const> sessions, std::span<const int32_t> tokens);
    explicit Session(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

/// Every query of a given answer to a prompt, for SessionOptions::probes: what a method that observes probes would see
/// if it knew the answer. Of `options` only n_ctx, system and chat_template count. Throws what Session::feed() throws
/// for prompt and answer.
[[nodiscard]] std::shared_ptr<const ProbeData> probes_of_answer(const std::shared_ptr<const Model> & model,
                                                                const SessionOptions & options, const Turn & prompt,
                                                                std::span<const int32_t> answer,
                                                                const Callbacks & callbacks = {});
[[nodiscard]] std::shared_ptr<const ProbeData> probes_of_answer(const std::shared_ptr<const Model> & model,
                                                                const SessionOptions & options,
                                                                std::span<const int32_t> prompt,
                                                                std::span<const int32_t> answer,
                                                                const Callbacks & callbacks = {});

/// Feeds one token to each of several sessions at once, by the threads of the first one: the weights are read once for
/// all. Each session's logits() are then those of its token, as after feed() of it alone but for what a matrix
/// multiplication of several columns rounds differently; attention and evictions are the same bit for bit.
/// Throws Error{invalid_argument} for a session that comes twice, is of another model, has no prompt yet, has a token
/// of its own waiting, or attends with ggml's operation; Error{too_large} where a context or a KV budget is full.
/// Nothing is changed then.
void feed_batch(std::span<Session * const> sessions, std::span<const int32_t> tokens);

/// A method as a session's options name it, without keep.
struct MethodName {
    std::string name;
    std::map<std::string, std::string> params = {};  ///< as typed
    uint64_t seed = 0;
    std::shared_ptr<const ProbeData> probes = nullptr;  ///< as SessionOptions; told apart by the object
    [[nodiscard]] auto operator<=>(const MethodName &) const = default;
};

/// One prefill for many methods: the prompt's whole cache in f16, and what each method made of it. Sessions begin with
/// it as if they had prefilled it themselves, bit for bit; only a method that prunes the prefill (FastV) runs its own
/// deeper layers. feed() once; begin() may then run in several threads.
class SharedPrefill {
  public:
    /// Of `options` only n_ctx, system and chat_template count. Throws Error{invalid_argument} for a method or
    /// parameters that do not exist.
    SharedPrefill(std::shared_ptr<const Model> model, const SessionOptions & options, std::vector<MethodName> methods);
    ~SharedPrefill();
    SharedPrefill(SharedPrefill &&) noexcept;
    SharedPrefill & operator=(SharedPrefill &&) noexcept;

    /// As Session::feed(). A method that refuses the prompt is no error here, but in its begin().
    void feed(std::span<const int32_t> tokens);
    void feed(const Turn & turn, bool render, const Callbacks & callbacks = {});

    /// The session that kept everything.
    [[nodiscard]] const Session & full() const;
    /// Scores of a method, [L]; empty where it refused the prompt. Throws Error{invalid_argument} for a method that was
    /// not named.
    [[nodiscard]] std::span<const LayerScore> scores(const MethodName & method) const;
    /// A session after its first prompt, as `options` ask for it: any keep or cap, KV type and decode policy. Throws
    /// what Session::feed() throws there, and Error{invalid_argument} for a method that was not named or whose
    /// n_ctx, system or chat_template are others.
    [[nodiscard]] Session begin(const SessionOptions & options) const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace kvsieve
