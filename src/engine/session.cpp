// SPDX-License-Identifier: MIT
#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "cache/ragged_kv_cache.h"
#include "engine/model_impl.h"
#include "engine/stop_filter.h"
#include "graph/forward.h"
#include "graph/prefill.h"
#include "kvsieve/error.h"
#include "text/chat_template.h"
#include "text/sampler.h"
#include "text/utf8_stream.h"

namespace kvsieve {
namespace {

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

void report(const Callbacks & callbacks, Phase phase, double progress) {
    if (callbacks.on_progress) {
        callbacks.on_progress(phase, progress);
    }
}

void throw_if_cancelled(const Callbacks & callbacks) {
    if (callbacks.is_cancelled && callbacks.is_cancelled()) {
        throw Error(ErrorCode::cancelled, "the request was cancelled");
    }
}

}  // namespace

std::string_view finish_reason_name(FinishReason reason) noexcept {
    switch (reason) {
        case FinishReason::end_of_generation:
            return "end_of_generation";
        case FinishReason::stop_text:
            return "stop_text";
        case FinishReason::length:
            return "length";
        case FinishReason::context:
            return "context";
    }
    return "unknown";
}

struct Session::Impl {
    std::shared_ptr<const Model> model;
    SessionOptions options;
    int32_t n_ctx = 0;
    GraphRunner runner;
    Weights weights;
    std::unique_ptr<Decoder> decoder;
    std::unique_ptr<Method> method;
    ChatTemplate chat;
    RaggedKvCache cache;

    // state of the conversation
    std::optional<Plan> plan;
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

    Impl(std::shared_ptr<const Model> model_, SessionOptions options_);

    [[nodiscard]] const Model::Impl & parts() const { return model->impl(); }
    void reset();
    void refuse_images_beyond_context(std::span<const Image> loaded) const;
    [[nodiscard]] std::string behind() const;
    Prompt make_prompt(const Turn & turn, bool render, std::vector<ChatMessage> & messages,
                       const Callbacks & callbacks);
    void process(const Prompt & prompt, const Callbacks & callbacks);
    void prefill(const Prompt & prompt, std::vector<float> residual, const Callbacks & callbacks);
    void extend(std::vector<float> residual, int32_t n, const Callbacks & callbacks);
    void evict(int32_t n_new, int32_t n_before);
    void decode(int32_t token);
    Answer generate(int32_t n_predict, Sampler & sampler, StopFilter & stop, const Callbacks & callbacks);
};

namespace {

KvCacheParams cache_params(const DecoderConfig & config, const SessionOptions & options) {
    return {config.n_layer, config.n_head_kv, config.head_dim, options.kv_type, options.kv_rot};
}

}  // namespace

Session::Impl::Impl(std::shared_ptr<const Model> model_, SessionOptions options_)
    : model(std::move(model_)),
      options(std::move(options_)),
      n_ctx(options.n_ctx == 0 ? model->info().n_ctx_train : options.n_ctx),
      runner(parts().n_threads),
      weights(parts().file),
      decoder(make_decoder(parts().file, weights, n_ctx)),
      method(make_method(options.method, options.method_options)),
      chat(parts().text.own_template(), options.chat_template),
      cache(cache_params(decoder->config(), options)) {
    if (options.n_ctx < 0) {
        throw Error(ErrorCode::invalid_argument,
                    "the context must have at least 1 token, got " + std::to_string(options.n_ctx));
    }
    const auto & profile = options.method_options.profile;
    if (profile && !profile->model_fingerprint.empty() && profile->model_fingerprint != model->info().fingerprint) {
        throw Error(ErrorCode::bad_input, "the profile was made for the model with fingerprint " +
                                              profile->model_fingerprint + ", this one has " +
                                              model->info().fingerprint);
    }
}

void Session::Impl::reset() {
    cache.release();
    runner.release();
    plan.reset();
    shape = {};
    images.clear();
    history.clear();
    answer.reset();
    pending.clear();
    n_processed = 0;
    logits.clear();
    timings = {};
}

/// What cannot fit is refused before it is encoded, which may take minutes.
void Session::Impl::refuse_images_beyond_context(std::span<const Image> loaded) const {
    int64_t n = 0;
    for (const Image & image : loaded) {
        n += parts().vision->count_tokens(image);
    }
    if (n_processed + n > n_ctx) {
        throw Error(ErrorCode::too_large, std::string(loaded.size() == 1 ? "the image takes " : "the images take ") +
                                              std::to_string(n) + " tokens" + behind() + ", the context takes " +
                                              std::to_string(n_ctx) + " (-c)");
    }
}

/// Says in a message how much stands before a prompt.
std::string Session::Impl::behind() const {
    return n_processed > 0 ? " behind " + std::to_string(n_processed) : "";
}

Prompt Session::Impl::make_prompt(const Turn & turn, bool render, std::vector<ChatMessage> & messages,
                                  const Callbacks & callbacks) {
    if (!turn.images.empty() && !parts().vision) {
        throw Error(ErrorCode::invalid_argument, "the prompt has " + std::to_string(turn.images.size()) +
                                                     " image(s), but no vision encoder was given (--mmproj)");
    }
    std::string text = place_images(turn.text, turn.images.size());
    if (text.empty()) {
        throw Error(ErrorCode::invalid_argument, "the prompt is empty, expected text or an image");
    }
    std::vector<Image> loaded;
    loaded.reserve(turn.images.size());
    for (const auto & path : turn.images) {
        loaded.push_back(load_image(path));
    }
    const auto vision_start = Clock::now();
    refuse_images_beyond_context(loaded);
    std::vector<std::shared_ptr<const EncodedImage>> encoded;
    for (const Image & image : loaded) {
        throw_if_cancelled(callbacks);
        report(callbacks, Phase::vision, static_cast<double>(encoded.size()) / static_cast<double>(loaded.size()));
        encoded.push_back(parts().vision->encode(image));
        if (encoded.back()->non_causal) {
            throw Error(ErrorCode::bad_input,
                        "this vision encoder wants attention both ways between visual tokens, "
                        "which architecture " +
                            model->info().architecture + " does not have here");
        }
    }
    timings.vision_ms = loaded.empty() ? 0.0 : ms_since(vision_start);

    const bool first_turn = n_processed == 0;
    std::string rendered = text;
    if (render) {
        if (first_turn && !options.system.empty()) {
            messages.push_back({"system", options.system});
        }
        if (first_turn || !answer) {
            messages.push_back({"user", text});
            rendered = chat.render(messages, true);
        } else {
            rendered = chat.render_follow_up(messages, {"user", text});
            messages.push_back({"assistant", *answer});
            messages.push_back({"user", text});
        }
    }
    const int32_t first = n_processed + static_cast<int32_t>(pending.size());
    Prompt prompt = build_prompt(parts().text, rendered, encoded, first_turn, first);
    if (prompt.n_pos_per_token != 1) {
        throw Error(ErrorCode::bad_input, "positions with several components are not supported by architecture " +
                                              model->info().architecture);
    }
    return prompt;
}

/// Puts a prompt behind everything so far. On an Error the cache holds what it held before.
void Session::Impl::process(const Prompt & prompt, const Callbacks & callbacks) {
    const auto n_embd = static_cast<size_t>(decoder->config().n_embd);
    const auto n_pending = static_cast<int32_t>(pending.size());
    const int32_t n = n_pending + prompt.n_tokens();
    if (n == 0) {
        throw Error(ErrorCode::invalid_argument, "the prompt has no tokens, expected at least one");
    }
    if (n_processed + n > n_ctx) {
        throw Error(ErrorCode::too_large, "the prompt has " + std::to_string(n) + " tokens" + behind() +
                                              ", the context takes " + std::to_string(n_ctx) + " (-c)");
    }
    std::vector<int32_t> tokens = pending;
    tokens.insert(tokens.end(), prompt.tokens.begin(), prompt.tokens.end());
    std::vector<float> residual(static_cast<size_t>(n) * n_embd);
    embed_tokens(runner, *decoder, tokens, residual);
    for (const VisualRun & run : prompt.runs) {
        std::copy_n(
            run.embd, static_cast<size_t>(run.n_tokens) * n_embd,
            residual.begin() + static_cast<int64_t>(n_pending + run.first_token) * static_cast<int64_t>(n_embd));
    }
    logits.resize(static_cast<size_t>(decoder->config().n_vocab));
    const int32_t before = n_processed;
    try {
        if (before == 0) {
            prefill(prompt, std::move(residual), callbacks);
        } else {
            extend(std::move(residual), n, callbacks);
        }
    } catch (...) {
        if (before == 0) {
            reset();
        } else {
            cache.truncate(before);
            runner.release();
        }
        n_processed = before;
        throw;
    }
    pending.clear();
    for (const PromptImage & place : prompt.images) {
        const EncodedImage & image = *place.image;
        images.push_back({image.name, place.first_position, place.n_tokens, image.nx, image.ny, image.grid_known});
    }
}

void Session::Impl::prefill(const Prompt & prompt, std::vector<float> residual, const Callbacks & callbacks) {
    const DecoderConfig & config = decoder->config();
    shape = {config.n_layer, config.n_head, config.n_head_kv, config.head_dim, prompt.n_tokens(), prompt.visual_mask};
    const MethodOptions & asked = options.method_options;
    const bool known = asked.keep == 1.0 && !asked.profile;
    Prefill work(runner, *decoder, cache, *method, shape, std::move(residual), options.force_compaction || !known);
    do {
        throw_if_cancelled(callbacks);
        report(callbacks, Phase::prefill, work.progress());
    } while (work.step());
    report(callbacks, Phase::compact, 1.0);
    plan = work.take_plan();
    logits = work.take_logits();
    timings.prefill_ms = work.times().compute_ms;
    timings.plan_ms = work.times().plan_ms;
    timings.compact_ms = work.times().compact_ms;
    peak_kv = work.peak_kv_bytes();
    scratch = std::max(scratch, runner.scratch_bytes() + work.buffer_bytes());
    n_processed = prompt.n_tokens();
    runner.release();
}

void Session::Impl::extend(std::vector<float> residual, int32_t n, const Callbacks & callbacks) {
    const auto start = Clock::now();
    const auto n_embd = static_cast<size_t>(decoder->config().n_embd);
    for (int32_t first = 0; first < n; first += kChunkTokens) {
        throw_if_cancelled(callbacks);
        report(callbacks, Phase::prefill, static_cast<double>(first) / n);
        const int32_t count = std::min(kChunkTokens, n - first);
        const std::span<float> part(residual.data() + static_cast<size_t>(first) * n_embd,
                                    static_cast<size_t>(count) * n_embd);
        const bool last = first + count == n;
        forward(runner, *decoder, cache, part, n_processed + first,
                last ? std::span<float>(logits) : std::span<float>());
    }
    scratch = std::max(scratch, runner.scratch_bytes() + residual.capacity() * sizeof(float));
    evict(n, n_processed);
    n_processed += n;
    timings.prefill_ms = ms_since(start);
    if (n > 1) {
        runner.release();
    }
}

/// Decode-time eviction after n_new rows were appended to n_before processed tokens, one token at a time.
void Session::Impl::evict(int32_t n_new, int32_t n_before) {
    if (!plan || plan->decode.empty()) {
        return;
    }
    for (int32_t il = 0; il < decoder->config().n_layer; ++il) {
        const DecodeRule & rule = plan->decode[static_cast<size_t>(il)];
        int32_t rows = cache.n_rows(il, 0) - n_new;
        int32_t n_evicted = 0;
        for (int32_t i = 1; i <= n_new; ++i) {
            ++rows;
            if (rule.n_over(rows, n_before + i) > 0) {
                --rows;
                ++n_evicted;
            }
        }
        if (n_evicted > 0) {
            cache.evict(il, rule.drop_slot, n_evicted);
        }
    }
}

void Session::Impl::decode(int32_t token) {
    const int32_t ids[] = {token};
    std::vector<float> residual(static_cast<size_t>(decoder->config().n_embd));
    embed_tokens(runner, *decoder, ids, residual);
    try {
        forward(runner, *decoder, cache, residual, n_processed, logits);
    } catch (...) {
        cache.truncate(n_processed);  // layers that already had the row
        throw;
    }
    evict(1, n_processed);
    ++n_processed;
}

Answer Session::Impl::generate(int32_t n_predict, Sampler & sampler, StopFilter & stop, const Callbacks & callbacks) {
    Answer out;
    Utf8Stream utf8;
    answer = "";
    const auto emit = [&](const std::string & text) {
        *answer += text;  // at once: a cancelled answer belongs to the conversation as far as it came
        if (callbacks.on_text && !text.empty()) {
            callbacks.on_text(text);
        }
    };
    double decode_ms = 0;
    while (true) {
        if (static_cast<int32_t>(out.tokens.size()) >= n_predict) {
            out.finish = FinishReason::length;
            break;
        }
        const auto start = Clock::now();
        const int32_t token = sampler.sample(logits);
        if (parts().text.is_eog(token)) {
            out.finish = FinishReason::end_of_generation;
            break;
        }
        sampler.accept(token);
        out.tokens.push_back(token);
        pending = {token};
        emit(stop.push(utf8.push(parts().text.piece(token))));
        if (stop.stopped()) {
            out.finish = FinishReason::stop_text;
            break;
        }
        if (n_processed + 1 >= n_ctx) {
            out.finish = FinishReason::context;
            break;
        }
        if (static_cast<int32_t>(out.tokens.size()) < n_predict) {
            throw_if_cancelled(callbacks);
            decode(token);
            pending.clear();
            ++timings.n_decoded;
            decode_ms += ms_since(start);
        }
    }
    if (!stop.stopped()) {
        emit(stop.push(utf8.finish()));
        emit(stop.finish());
    }
    timings.decode_ms = decode_ms;
    out.text = *answer;
    return out;
}

Session::Session(std::shared_ptr<const Model> model, SessionOptions options)
    : impl_(std::make_unique<Impl>(std::move(model), std::move(options))) {}
Session::~Session() = default;
Session::Session(Session &&) noexcept = default;
Session & Session::operator=(Session &&) noexcept = default;

Answer Session::ask(const Turn & turn, const GenerateOptions & options, const Callbacks & callbacks) {
    Impl & s = *impl_;
    if (options.n_predict < 0) {
        throw Error(ErrorCode::invalid_argument,
                    "the number of tokens to predict must not be negative, got " + std::to_string(options.n_predict));
    }
    const SamplingOptions & sampling = options.sampling;
    Sampler sampler(s.parts().text,
                    {sampling.temp, sampling.top_k, sampling.top_p, sampling.min_p, sampling.seed, sampling.grammar});
    StopFilter stop(options.stop);
    s.timings = {};
    std::vector<ChatMessage> messages = s.history;
    const Prompt prompt = s.make_prompt(turn, true, messages, callbacks);
    s.process(prompt, callbacks);
    s.history = std::move(messages);

    Answer answer = s.generate(options.n_predict, sampler, stop, callbacks);
    answer.n_prompt = prompt.n_tokens();
    answer.n_visual = prompt.n_visual;
    answer.n_text = prompt.n_text();
    answer.timings = s.timings;
    return answer;
}

std::span<const float> Session::feed(std::span<const int32_t> tokens) {
    impl_->timings = {};
    impl_->process(build_prompt(impl_->parts().text, tokens, impl_->n_processed), {});
    return impl_->logits;
}

std::span<const float> Session::feed(const Turn & turn, bool render, const Callbacks & callbacks) {
    Impl & s = *impl_;
    s.timings = {};
    std::vector<ChatMessage> messages = s.history;
    const Prompt prompt = s.make_prompt(turn, render, messages, callbacks);
    s.process(prompt, callbacks);
    s.history = std::move(messages);
    s.answer = "";
    return s.logits;
}

void Session::reset() {
    impl_->reset();
}

int32_t Session::n_processed() const {
    return impl_->n_processed;
}

const Plan * Session::plan() const {
    return impl_->plan ? &*impl_->plan : nullptr;
}

const PromptShape & Session::prompt_shape() const {
    return impl_->shape;
}

const std::vector<ImagePlace> & Session::images() const {
    return impl_->images;
}

KvUsage Session::usage() const {
    return impl_->cache.usage(impl_->n_processed);
}

uint64_t Session::peak_kv_bytes() const {
    return impl_->peak_kv;
}

uint64_t Session::scratch_bytes() const {
    return impl_->scratch;
}

std::vector<int32_t> Session::positions(int32_t il, int32_t head_kv) const {
    const auto positions = impl_->cache.positions(il, head_kv);
    return {positions.begin(), positions.end()};
}

const Timings & Session::timings() const {
    return impl_->timings;
}

}  // namespace kvsieve
