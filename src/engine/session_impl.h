// SPDX-License-Identifier: MIT
// What a Session holds, for the engine's own files.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cache/ragged_kv_cache.h"
#include "engine/eviction.h"
#include "engine/model_impl.h"
#include "graph/forward.h"
#include "graph/prefill.h"
#include "kvsieve/engine.h"
#include "text/chat_template.h"
#include "vision/prompt.h"

namespace kvsieve {

/// Who plans the first prompt.
struct PlanMaker {
    std::shared_ptr<const Method> method;
    Planner planner;                // empty: the method plans
    bool keeps_everything = false;  // known without observing
};

/// The first prompt on its way through the layers.
struct FirstPrompt {
    PlanMaker maker;
    Prefill work;
};

class Generation;

struct Session::Impl {
    std::shared_ptr<const Model> model;
    SessionOptions options;
    int32_t n_ctx = 0;
    GraphRunner runner;
    Weights weights;
    std::unique_ptr<Decoder> decoder;
    bool from_registry;  // the method, by its name in the options
    std::shared_ptr<const Method> method;
    ChatTemplate chat;
    RaggedKvCache cache;
    Eviction eviction;
    ResidualObserver on_residual;     // of the first prompt's prefill
    std::vector<LayerProbes> probes;  // of the options

    std::unique_ptr<FirstPrompt> arriving;  // while it is prefilled

    // state of the conversation
    std::optional<Plan> plan;
    MethodOptions method_options;  // with the keep that is in use
    PromptShape shape;
    std::vector<ImagePlace> images;
    std::vector<ChatMessage> history;   // rendered so far, without the last answer
    std::optional<std::string> answer;  // the last one, in the cache but not in the history
    std::vector<int32_t> pending;       // sampled but not yet in the cache
    int32_t n_processed = 0;
    std::vector<float> logits;  // [n_vocab]
    Timings timings;
    uint64_t peak_kv = 0;
    uint64_t scratch = 0;

    Impl(std::shared_ptr<const Model> model_, SessionOptions options_, std::shared_ptr<const Method> method_);

    [[nodiscard]] const Model::Impl & parts() const { return model->impl(); }
    void reset();
    void refuse_images_beyond_context(std::span<const Image> loaded) const;
    [[nodiscard]] std::string behind() const;
    Prompt make_prompt(const Turn & turn, bool render, std::vector<ChatMessage> & messages,
                       const Callbacks & callbacks);
    void process(const Prompt & prompt, int32_t n_predict, const Callbacks & callbacks);
    [[nodiscard]] PromptShape shape_of(const Prompt & prompt) const;
    [[nodiscard]] std::vector<float> embed(const Prompt & prompt);
    /// The first prompt in parts: start() once, then step() until it says false. After an Error reset() is due.
    void start(const Prompt & prompt, int32_t n_predict);
    [[nodiscard]] bool step(const Callbacks & callbacks);
    void keep_images_of(const Prompt & prompt);
    /// Goes on from a prompt that `base` prefilled with everything kept in f16. `scores` [L] are this method's own;
    /// `residual` is the stream before Traits::prune_layer.
    void adopt(const Impl & base, std::span<const LayerScore> scores, std::span<const float> residual);
    [[nodiscard]] PlanMaker choose_method(const PromptShape & asked, int32_t n_predict);
    void take(Prefill & work);
    [[nodiscard]] bool fits(int32_t n_new) const;
    [[nodiscard]] AttentionOptions attention_options(bool last, NewestAttention & newest) const;
    void extend(std::vector<float> residual, int32_t n, const Callbacks & callbacks);
    void decode(int32_t token);
    Answer generate(Generation & generation, const Callbacks & callbacks);
};

/// One token of each session by the given runner, as feed_batch(), which checks what this takes for granted.
void decode_together(GraphRunner & runner, std::span<Session::Impl * const> sessions, std::span<const int32_t> tokens);

}  // namespace kvsieve
