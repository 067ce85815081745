// SPDX-License-Identifier: MIT
#include <algorithm>
#include <chrono>
#include <iterator>
#include <string>
#include <utility>

#include "engine/generation.h"
#include "engine/probe_recorder.h"
#include "engine/row_cap.h"
#include "engine/session_impl.h"
#include "kvsieve/error.h"
#include "policy/clock.h"

namespace kvsieve {
namespace {

using Clock = std::chrono::steady_clock;

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
        case FinishReason::kv_budget:
            return "kv_budget";
    }
    return "unknown";
}

namespace {

KvCacheParams cache_params(const DecoderConfig & config, const SessionOptions & options) {
    return {config.n_layer, config.n_head_kv, config.head_dim, options.kv_type, options.kv_rot};
}

}  // namespace

Session::Impl::Impl(std::shared_ptr<const Model> model_, SessionOptions options_, std::shared_ptr<const Method> method_)
    : model(std::move(model_)),
      options(std::move(options_)),
      n_ctx(options.n_ctx == 0 ? model->info().n_ctx_train : options.n_ctx),
      runner(parts().n_threads),
      weights(parts().file, parts().packed.get()),
      decoder(make_decoder(parts().file, weights, n_ctx)),
      from_registry(method_ == nullptr),
      method(method_ != nullptr ? std::move(method_) : make_method(options.method, options.method_options)),
      chat(parts().text.own_template(), options.chat_template),
      cache(cache_params(decoder->config(), options)),
      eviction(options.decode_policy, options.decode_cap, model->info().n_head, model->info().n_head_kv),
      method_options(options.method_options) {
    check_row_caps(options, cache);
    if (!from_registry && (options.kv_tokens > 0 || options.kv_share > 0.0 || options.kv_bytes > 0)) {
        throw Error(ErrorCode::invalid_argument,
                    "a cap on the KV rows needs a method of the registry, not one of the caller's own");
    }
    if (method->traits().row_types && options.kv_type != KvType::f16) {
        throw Error(ErrorCode::invalid_argument, "method " + options.method +
                                                     " chooses the row types itself here; expected KV type f16, got " +
                                                     std::string(kv_type_name(options.kv_type)));
    }
    if (options.n_ctx < 0) {
        throw Error(ErrorCode::invalid_argument,
                    "the context must have at least 1 token, got " + std::to_string(options.n_ctx));
    }
    if (options.probes && options.probes->model_fingerprint != model->info().fingerprint) {
        throw Error(ErrorCode::bad_input, "the probes were recorded with the model with fingerprint " +
                                              options.probes->model_fingerprint + ", this one has " +
                                              model->info().fingerprint);
    }
    if (options.probes) {
        probes = options.probes->layers();
    }
    const auto & profile = options.method_options.profile;
    if (profile && !profile->model_fingerprint.empty() && profile->model_fingerprint != model->info().fingerprint) {
        throw Error(ErrorCode::bad_input, "the profile was made for the model with fingerprint " +
                                              profile->model_fingerprint + ", this one has " +
                                              model->info().fingerprint);
    }
}

void Session::Impl::reset() {
    arriving.reset();
    cache.release();
    runner.release();
    eviction.reset();
    plan.reset();
    method_options = options.method_options;
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

/// The residual stream of what is pending and of a prompt, [n][n_embd].
std::vector<float> Session::Impl::embed(const Prompt & prompt) {
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
    if (n_processed > 0 && !fits(n)) {
        throw Error(ErrorCode::too_large,
                    "the cache would hold " + std::to_string(eviction.bytes_after(cache, n, n_processed)) +
                        " bytes with this prompt, the KV budget takes " + std::to_string(options.kv_bytes));
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
    return residual;
}

/// Puts a prompt behind everything so far. On an Error the cache holds what it held before.
void Session::Impl::process(const Prompt & prompt, int32_t n_predict, const Callbacks & callbacks) {
    if (n_processed == 0) {
        try {
            start(prompt, n_predict);
            while (step(callbacks)) {
            }
        } catch (...) {
            reset();
            throw;
        }
    } else {
        std::vector<float> residual = embed(prompt);
        try {
            extend(std::move(residual), static_cast<int32_t>(pending.size()) + prompt.n_tokens(), callbacks);
        } catch (...) {
            cache.truncate(n_processed);
            runner.release();
            throw;
        }
    }
    keep_images_of(prompt);
}

void Session::Impl::keep_images_of(const Prompt & prompt) {
    pending.clear();
    for (const PromptImage & place : prompt.images) {
        const EncodedImage & image = *place.image;
        images.push_back({image.name, place.first_position, place.n_tokens, image.nx, image.ny, image.grid_known});
    }
}

/// The method of the options, with the keep that caps on the rows lead to.
PlanMaker Session::Impl::choose_method(const PromptShape & asked, int32_t n_predict) {
    PlanMaker maker{.method = method, .planner = {}};
    const int32_t n = asked.n_tokens;
    if (const auto cap = prompt_cap_rows(options, cache, n, eviction.capped() ? 0 : n_predict)) {
        const bool takes_keep = !method_info(options.method).keep_of.empty() && !method_options.profile;
        if (takes_keep && *cap >= int64_t{n} * asked.n_layer * asked.n_head_kv) {
            method_options.keep = 1.0;
        } else if (!takes_keep || method->traits().layerwise || method->traits().prune_layer > 0) {
            // the number of rows does not depend on what is observed
            method_options = fit_rows(options.method, options.method_options, asked, {}, *cap).options;
            maker.method = make_method(options.method, method_options);
        } else {
            maker.planner = [this, cap](const PromptShape & prompt_shape, std::span<const LayerScore> scores) {
                RowFit fit = fit_rows(options.method, options.method_options, prompt_shape, scores, *cap);
                method_options = fit.options;
                return std::move(fit.plan);
            };
        }
    }
    maker.keeps_everything = !options.force_compaction && from_registry && !maker.planner &&
                             method_options.keep == 1.0 && !method_options.profile;
    return maker;
}

PromptShape Session::Impl::shape_of(const Prompt & prompt) const {
    const DecoderConfig & config = decoder->config();
    PromptShape out{config.n_layer,  config.n_head,     config.n_head_kv,
                    config.head_dim, prompt.n_tokens(), prompt.visual_mask};
    out.next_position = prompt.next_position;
    return out;
}

void Session::Impl::start(const Prompt & prompt, int32_t n_predict) {
    std::vector<float> residual = embed(prompt);
    PromptShape asked = shape_of(prompt);
    PlanMaker maker = choose_method(asked, n_predict);
    const Method & used = *maker.method;
    const bool observe = !maker.keeps_everything;
    Planner planner = std::move(maker.planner);
    ProbeSource source = observe && used.traits().probes ? parts().probe_source() : ProbeSource();
    if (!probes.empty()) {
        source.probes = probes;
    }
    arriving.reset(new FirstPrompt{
        std::move(maker),
        {runner, *decoder, cache, used, std::move(asked), std::move(residual), observe, std::move(planner), source}});
    arriving->work.on_residual(on_residual);
    arriving->work.use_attention_kernel(options.attention_kernel);
}

bool Session::Impl::step(const Callbacks & callbacks) {
    throw_if_cancelled(callbacks);
    report(callbacks, Phase::prefill, arriving->work.progress());
    if (arriving->work.step()) {
        return true;
    }
    report(callbacks, Phase::compact, 1.0);
    take(arriving->work);
    arriving.reset();
    return false;
}

/// The results of a finished prefill.
void Session::Impl::take(Prefill & work) {
    plan = work.take_plan();
    shape = work.shape();
    eviction.begin(*plan);
    logits = work.take_logits();
    timings.prefill_ms = work.times().compute_ms;
    timings.plan_ms = work.times().plan_ms;
    timings.compact_ms = work.times().compact_ms;
    peak_kv = work.peak_kv_bytes();
    scratch = std::max(scratch, runner.scratch_bytes() + work.buffer_bytes());
    n_processed = shape.n_tokens;
    runner.release();
}

void Session::Impl::adopt(const Impl & base, std::span<const LayerScore> scores, std::span<const float> residual) {
    const auto store = [&](int32_t il, const LayerPlan * kept) {
        const auto rows_of = [&](KvRowsView (RaggedKvCache::*rows)(int32_t, int32_t) const) {
            const uint8_t * const first = (base.cache.*rows)(il, 0).data;
            const ptrdiff_t to_next = shape.n_head_kv > 1 ? (base.cache.*rows)(il, 1).data - first : 0;
            return F16Rows{reinterpret_cast<const ggml_fp16_t *>(first), 0,
                           static_cast<size_t>(to_next) / sizeof(ggml_fp16_t)};
        };
        cache.store_layer(il, rows_of(&RaggedKvCache::k_rows), rows_of(&RaggedKvCache::v_rows), shape.n_tokens, kept,
                          {}, runner.n_threads());
    };
    shape = base.shape;
    PlanMaker maker = choose_method(shape, 0);
    const Traits & traits = maker.method->traits();
    if (!traits.query_stats) {
        shape.rope = {};
    }
    maker.method->check(shape);
    if (traits.prune_layer > 0 && traits.prune_layer < shape.n_layer && !maker.keeps_everything) {
        for (int32_t il = 0; il < traits.prune_layer; ++il) {
            store(il, nullptr);
        }
        Prefill work(runner, *decoder, cache, *maker.method, shape, {residual.begin(), residual.end()},
                     scores[static_cast<size_t>(traits.prune_layer) - 1]);
        work.use_attention_kernel(options.attention_kernel);
        while (work.step()) {
        }
        take(work);
    } else {
        const auto plan_start = Clock::now();
        plan = maker.keeps_everything ? *base.plan
               : maker.planner        ? maker.planner(shape, scores)
                                      : maker.method->plan(shape, scores);
        timings.plan_ms = ms_since(plan_start);
        const auto compact_start = Clock::now();
        // merged rows are means of rows as they were stored, unless each layer is planned when it is stored
        const bool compact_later = traits.merges && !traits.layerwise;
        for (int32_t il = 0; il < shape.n_layer; ++il) {
            store(il, compact_later || plan->keeps_everything ? nullptr : &plan->layers[static_cast<size_t>(il)]);
        }
        if (compact_later && !plan->keeps_everything) {
            cache.compact(*plan);
        }
        timings.compact_ms = ms_since(compact_start);
        eviction.begin(*plan);
        logits = base.logits;
        n_processed = shape.n_tokens;
    }
    images = base.images;
    history = base.history;
    answer = base.answer;
}

/// For forward(); `last`: it processes the newest token of all.
AttentionOptions Session::Impl::attention_options(bool last, NewestAttention & newest) const {
    return {last && eviction.wants_attention() ? &newest : nullptr, options.attention_kernel};
}

void Session::Impl::extend(std::vector<float> residual, int32_t n, const Callbacks & callbacks) {
    const auto start = Clock::now();
    const auto n_embd = static_cast<size_t>(decoder->config().n_embd);
    NewestAttention newest;
    for (int32_t first = 0; first < n; first += kChunkTokens) {
        throw_if_cancelled(callbacks);
        report(callbacks, Phase::prefill, static_cast<double>(first) / n);
        const int32_t count = std::min(kChunkTokens, n - first);
        const std::span<float> part(residual.data() + static_cast<size_t>(first) * n_embd,
                                    static_cast<size_t>(count) * n_embd);
        const bool last = first + count == n;
        forward(runner, *decoder, cache, part, n_processed + first,
                last ? std::span<float>(logits) : std::span<float>(), attention_options(last, newest));
    }
    scratch = std::max(scratch, runner.scratch_bytes() + residual.capacity() * sizeof(float));
    eviction.run(cache, n, n_processed, newest);
    n_processed += n;
    timings.prefill_ms = ms_since(start);
    if (n > 1) {
        runner.release();
    }
}

/// May n_new more tokens be processed under the cap on bytes?
bool Session::Impl::fits(int32_t n_new) const {
    return options.kv_bytes == 0 || eviction.bytes_after(cache, n_new, n_processed) <= options.kv_bytes;
}

void Session::Impl::decode(int32_t token) {
    const int32_t ids[] = {token};
    std::vector<float> residual(static_cast<size_t>(decoder->config().n_embd));
    embed_tokens(runner, *decoder, ids, residual);
    NewestAttention newest;
    try {
        forward(runner, *decoder, cache, residual, n_processed, logits, attention_options(true, newest));
    } catch (...) {
        cache.truncate(n_processed);  // layers that already had the row
        throw;
    }
    eviction.run(cache, 1, n_processed, newest);
    ++n_processed;
}

Answer Session::Impl::generate(Generation & generation, const Callbacks & callbacks) {
    auto start = Clock::now();
    while (generation.advance(*this, callbacks)) {
        throw_if_cancelled(callbacks);
        decode(pending[0]);
        pending.clear();
        ++timings.n_decoded;
        timings.decode_ms += ms_since(start);
        start = Clock::now();
    }
    return generation.finish(*this, callbacks);
}

Session::Session(std::shared_ptr<const Model> model, SessionOptions options)
    : impl_(std::make_unique<Impl>(std::move(model), std::move(options), nullptr)) {}
Session::Session(std::shared_ptr<const Model> model, SessionOptions options, std::shared_ptr<const Method> method)
    : impl_(std::make_unique<Impl>(std::move(model), std::move(options), std::move(method))) {}
Session::Session(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Session::~Session() = default;
Session::Session(Session &&) noexcept = default;
Session & Session::operator=(Session &&) noexcept = default;

Session Session::fork() const {
    const Impl & s = *impl_;
    if (s.n_processed == 0 || s.n_processed != s.shape.n_tokens || !s.pending.empty()) {
        throw Error(ErrorCode::invalid_argument, "a session can be forked right behind its first prompt only");
    }
    Session copy(std::make_unique<Impl>(s.model, s.options, s.from_registry ? nullptr : s.method));
    Impl & c = *copy.impl_;
    c.cache = s.cache.snapshot();
    c.plan = s.plan;
    c.method_options = s.method_options;
    c.shape = s.shape;
    c.images = s.images;
    c.history = s.history;
    c.answer = s.answer;
    c.n_processed = s.n_processed;
    c.logits = s.logits;
    c.eviction.begin(*c.plan);
    return copy;
}

void feed_batch(std::span<Session * const> sessions, std::span<const int32_t> tokens) {
    const auto refuse = [](const std::string & sentence) { throw Error(ErrorCode::invalid_argument, sentence); };
    if (sessions.empty() || sessions.size() != tokens.size()) {
        refuse("a batch of " + std::to_string(sessions.size()) + " sessions got " + std::to_string(tokens.size()) +
               " tokens, expected one for each");
    }
    Session::Impl & first = *sessions[0]->impl_;
    for (size_t i = 0; i < sessions.size(); ++i) {
        const Session::Impl & s = *sessions[i]->impl_;
        const std::string which = "session " + std::to_string(i) + " of the batch ";
        if (std::count(sessions.begin(), sessions.end(), sessions[i]) != 1) {
            refuse(which + "comes twice");
        }
        if (s.model != first.model) {
            refuse(which + "is of another model");
        }
        if (s.n_processed == 0 || !s.pending.empty()) {
            refuse(which + (s.n_processed == 0 ? "has no prompt yet" : "has a token of its own waiting"));
        }
        if (!s.options.attention_kernel) {
            refuse(which + "attends with ggml's operation, which has no batches");
        }
        if (tokens[i] < 0 || tokens[i] >= s.decoder->config().n_vocab) {
            refuse(which + "got the token " + std::to_string(tokens[i]) + ", the vocabulary has " +
                   std::to_string(s.decoder->config().n_vocab));
        }
        if (s.n_processed + 1 > s.n_ctx || !s.fits(1)) {
            throw Error(ErrorCode::too_large,
                        which + "has no room for another token in its " + (s.fits(1) ? "context" : "KV budget"));
        }
    }
    std::vector<Session::Impl *> running;
    std::ranges::transform(sessions, std::back_inserter(running), [](Session * one) { return one->impl_.get(); });
    decode_together(first.runner, running, tokens);
}

void decode_together(GraphRunner & runner, std::span<Session::Impl * const> sessions, std::span<const int32_t> tokens) {
    const Decoder & decoder = *sessions[0]->decoder;
    std::vector<float> residual(tokens.size() * static_cast<size_t>(decoder.config().n_embd));
    embed_tokens(runner, decoder, tokens, residual);
    std::vector<NewestAttention> newest(sessions.size());
    std::vector<BatchLane> lanes;
    for (size_t i = 0; i < sessions.size(); ++i) {
        Session::Impl & s = *sessions[i];
        lanes.push_back({{&s.cache, s.n_processed, s.eviction.wants_attention() ? &newest[i] : nullptr},
                         std::span<float>(s.logits)});
    }
    try {
        forward_batch(runner, decoder, lanes, residual);
    } catch (...) {
        for (Session::Impl * s : sessions) {
            s->cache.truncate(s->n_processed);  // layers that already had the row
        }
        throw;
    }
    for (size_t i = 0; i < sessions.size(); ++i) {
        Session::Impl & s = *sessions[i];
        s.eviction.run(s.cache, 1, s.n_processed, newest[i]);
        ++s.n_processed;
    }
}

Answer Session::ask(const Turn & turn, const GenerateOptions & options, const Callbacks & callbacks) {
    Impl & s = *impl_;
    Generation generation(s.parts().text, options);
    s.timings = {};
    std::vector<ChatMessage> messages = s.history;
    const Prompt prompt = s.make_prompt(turn, true, messages, callbacks);
    s.process(prompt, options.n_predict, callbacks);
    s.history = std::move(messages);

    Answer answer = s.generate(generation, callbacks);
    answer.n_prompt = prompt.n_tokens();
    answer.n_visual = prompt.n_visual;
    answer.n_text = prompt.n_text();
    return answer;
}

Answer Session::generate(const GenerateOptions & options, const Callbacks & callbacks) {
    Impl & s = *impl_;
    Generation generation(s.parts().text, options);
    if (s.n_processed == 0 || !s.pending.empty()) {
        throw Error(ErrorCode::invalid_argument, "there is nothing to answer; expected feed() before generate()");
    }
    s.timings = {};
    return s.generate(generation, callbacks);
}

std::span<const float> Session::feed(std::span<const int32_t> tokens) {
    impl_->timings = {};
    impl_->process(build_prompt(impl_->parts().text, tokens, impl_->n_processed), 0, {});
    return impl_->logits;
}

std::span<const float> Session::feed(std::span<const int32_t> tokens, std::span<const uint8_t> visual_mask) {
    if (visual_mask.size() != tokens.size()) {
        throw Error(ErrorCode::invalid_argument, "the visual mask has " + std::to_string(visual_mask.size()) +
                                                     " entries, expected " + std::to_string(tokens.size()) +
                                                     ", one for each token");
    }
    impl_->timings = {};
    Prompt prompt = build_prompt(impl_->parts().text, tokens, impl_->n_processed);
    for (size_t i = 0; i < visual_mask.size(); ++i) {
        prompt.visual_mask[i] = visual_mask[i] != 0 ? 1 : 0;
        prompt.n_visual += prompt.visual_mask[i];
    }
    impl_->process(prompt, 0, {});
    return impl_->logits;
}

std::span<const float> Session::feed(const Turn & turn, bool render, const Callbacks & callbacks) {
    Impl & s = *impl_;
    s.timings = {};
    std::vector<ChatMessage> messages = s.history;
    const Prompt prompt = s.make_prompt(turn, render, messages, callbacks);
    s.process(prompt, 0, callbacks);
    s.history = std::move(messages);
    s.answer = "";
    return s.logits;
}

std::span<const float> Session::logits() const {
    return impl_->logits;
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

const MethodOptions & Session::method_options() const {
    return impl_->method_options;
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
