// SPDX-License-Identifier: MIT
#include "kvsieve/batch.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <future>
#include <iterator>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "engine/generation.h"
#include "engine/kv_bound.h"
#include "kvsieve/error.h"
#include "policy/clock.h"

namespace kvsieve {
namespace {

using Clock = std::chrono::steady_clock;

/// How long a step that has nothing else to do waits for an image.
constexpr std::chrono::milliseconds kWait{20};

struct Job {
    Job(uint64_t id_, Request request_, Session session_, Generation generation_)
        : id(id_),
          request(std::move(request_)),
          session(std::move(session_)),
          generation(std::move(generation_)),
          submitted(Clock::now()) {
        callbacks.on_text = request.on_text;
        callbacks.is_cancelled = [this] { return cancelled.load(); };
    }

    uint64_t id;
    Request request;
    Session session;
    Generation generation;
    Callbacks callbacks;
    std::atomic<bool> cancelled = false;

    std::future<void> preparing;        // writes the two below
    std::optional<Prompt> prompt;       // nothing before it was prepared
    std::vector<ChatMessage> messages;  // with the prompt's
    uint64_t bound = 0;                 // most bytes that the cache can take
    Clock::time_point submitted;
    RequestResult result;
};

using JobPtr = std::shared_ptr<Job>;

}  // namespace

struct BatchEngine::Impl {
    std::shared_ptr<const Model> model;
    BatchOptions options;
    GraphRunner runner;  // of the steps of all

    // of the thread that steps
    JobPtr prefilling;
    std::vector<JobPtr> decoding;
    std::exception_ptr failure;  // of the last step that was impossible
    std::exception_ptr thrown;   // by an on_done; leaves the step at its end
    uint64_t peak = 0;

    mutable std::mutex mutex;
    std::condition_variable_any came;
    std::deque<JobPtr> waiting;        // the first of them may be prepared already
    std::map<uint64_t, JobPtr> alive;  // all that have not ended
    uint64_t last_id = 0;
    BatchUsage published;

    Impl(std::shared_ptr<const Model> model_, const BatchOptions & options_)
        : model(std::move(model_)), options(options_), runner(model->impl().n_threads) {
        if (options.max_sequences < 1) {
            throw Error(ErrorCode::invalid_argument,
                        "a batch engine must take at least 1 sequence, got " + std::to_string(options.max_sequences));
        }
        if (!(options.prefill_ms >= 0.0)) {
            throw Error(ErrorCode::invalid_argument,
                        "the time of prefill between two tokens must not be negative, got " +
                            std::to_string(options.prefill_ms) + " ms");
        }
    }

    static Session::Impl & state(Job & job) { return *job.session.impl_; }

    uint64_t submit(Request request) {
        if (!request.session.attention_kernel) {
            throw Error(ErrorCode::invalid_argument,
                        "sequences that attend with ggml's operation cannot decode together");
        }
        if (request.tokens.empty() && request.turn.text.empty() && request.turn.images.empty()) {
            throw Error(ErrorCode::invalid_argument, "the prompt is empty, expected text, tokens or an image");
        }
        for (const int32_t token : request.tokens) {
            if (token < 0 || token >= model->info().n_vocab) {
                throw Error(ErrorCode::invalid_argument, "the prompt has the token " + std::to_string(token) +
                                                             ", the vocabulary has " +
                                                             std::to_string(model->info().n_vocab));
            }
        }
        Session session(model, request.session);
        if (session.impl_->method->traits().probes) {
            static_cast<void>(model->impl().probe_source());  // no step waits while they are made
        }
        Generation generation(model->impl().text, request.generate);
        const std::lock_guard lock(mutex);
        const uint64_t id = ++last_id;
        const auto job = std::make_shared<Job>(id, std::move(request), std::move(session), std::move(generation));
        waiting.push_back(job);
        alive[id] = job;
        ++published.n_waiting;
        came.notify_all();
        return id;
    }

    bool cancel(uint64_t id) {
        const std::lock_guard lock(mutex);
        const auto found = alive.find(id);
        if (found == alive.end()) {
            return false;
        }
        found->second->cancelled = true;
        came.notify_all();
        return true;
    }

    /// Runs a part of a job; what it throws ends the job. False if it did.
    template <typename F>
    bool attempt(const JobPtr & job, F && work) {
        try {
            work();
            return true;
        } catch (const Error & e) {
            end(job, e.code() == ErrorCode::cancelled && job->cancelled ? RequestEnd::cancelled : RequestEnd::failed,
                std::current_exception());
        } catch (...) {
            end(job, RequestEnd::failed, std::current_exception());
        }
        return false;
    }

    /// The job leaves its place, says so, and gives everything back.
    void end(const JobPtr & job, RequestEnd how, std::exception_ptr error) {
        if (prefilling == job) {
            prefilling = nullptr;
        }
        std::erase(decoding, job);
        {
            const std::lock_guard lock(mutex);
            std::erase(waiting, job);
            alive.erase(job->id);
        }
        RequestResult & result = job->result;
        result.id = job->id;
        result.end = how;
        state(*job).arriving.reset();  // a prefill half-way
        try {
            result.answer = job->generation.finish(state(*job), job->callbacks);
        } catch (...) {
            error = error ? error : std::current_exception();
            result.end = how == RequestEnd::answered ? RequestEnd::failed : how;
        }
        result.error = result.end == RequestEnd::failed ? error : nullptr;
        if (job->prompt) {
            result.answer.n_prompt = job->prompt->n_tokens();
            result.answer.n_visual = job->prompt->n_visual;
            result.answer.n_text = job->prompt->n_text();
        }
        try {
            if (job->request.on_done) {
                job->request.on_done(result, job->session);
            }
        } catch (...) {
            thrown = std::current_exception();
        }
        job->session.reset();
    }

    void end_cancelled() {
        std::vector<JobPtr> gone;
        {
            const std::lock_guard lock(mutex);
            for (const auto & [id, job] : alive) {
                if (job->cancelled && !is_preparing(*job)) {
                    gone.push_back(job);
                }
            }
        }
        for (const JobPtr & job : gone) {
            end(job, RequestEnd::cancelled, nullptr);
        }
    }

    [[nodiscard]] JobPtr first_waiting() const {
        const std::lock_guard lock(mutex);
        return waiting.empty() ? nullptr : waiting.front();
    }

    [[nodiscard]] static bool is_preparing(const Job & job) {
        return job.preparing.valid() && job.preparing.wait_for(std::chrono::seconds(0)) != std::future_status::ready;
    }

    static void prepare(Job & job) {
        Session::Impl & s = state(job);
        if (!job.request.tokens.empty()) {
            job.prompt = build_prompt(s.parts().text, job.request.tokens, 0);
        } else {
            Callbacks only_cancel;
            only_cancel.is_cancelled = job.callbacks.is_cancelled;
            job.prompt = s.make_prompt(job.request.turn, true, job.messages, only_cancel);
        }
    }

    /// The prompt of the first that waits. True when it is there and its bound is known.
    bool prepared(const JobPtr & job) {
        if (job->bound > 0) {
            return true;
        }
        return attempt(job,
                       [&] {
                           if (job->preparing.valid()) {
                               if (!is_preparing(*job)) {
                                   job->preparing.get();
                               }
                           } else if (!job->prompt && !job->request.turn.images.empty()) {
                               job->preparing = std::async(std::launch::async, [job] { prepare(*job); });
                           } else if (!job->prompt) {
                               prepare(*job);
                           }
                           if (!job->preparing.valid() && job->prompt) {
                               find_bound(*job);
                           }
                       }) &&
               job->bound > 0;
    }

    void find_bound(Job & job) const {
        Session::Impl & s = state(job);
        const int32_t n = job.prompt->n_tokens();
        if (n > s.n_ctx) {
            throw Error(ErrorCode::too_large, "the prompt has " + std::to_string(n) + " tokens, the context takes " +
                                                  std::to_string(s.n_ctx));
        }
        const uint64_t bound = kv_bound_of_prompt(s, *job.prompt, job.request.generate.n_predict);
        if (options.kv_bytes != 0 && bound > options.kv_bytes) {
            throw Error(ErrorCode::too_large, "the cache of a prompt of " + std::to_string(n) + " tokens can take " +
                                                  std::to_string(bound) + " bytes, all caches together may take " +
                                                  std::to_string(options.kv_bytes));
        }
        job.bound = bound;
    }

    [[nodiscard]] uint64_t admitted() const {
        uint64_t sum = prefilling ? prefilling->bound : 0;
        for (const JobPtr & job : decoding) {
            sum += job->bound;
        }
        return sum;
    }

    void admit() {
        const JobPtr job = first_waiting();
        if (job == nullptr || prefilling != nullptr || !prepared(job)) {
            return;
        }
        if (std::cmp_greater_equal(decoding.size(), options.max_sequences) ||
            (options.kv_bytes != 0 && admitted() > options.kv_bytes - job->bound)) {
            return;
        }
        {
            const std::lock_guard lock(mutex);
            waiting.pop_front();
        }
        prefilling = job;
        job->result.waited_ms = ms_since(job->submitted);
        attempt(job, [&] { state(*job).start(*job->prompt, job->request.generate.n_predict); });
    }

    void prefill() {
        if (prefilling == nullptr) {
            return;
        }
        const auto start = Clock::now();
        do {
            const JobPtr job = prefilling;
            attempt(job, [&] {
                Session::Impl & s = state(*job);
                if (s.step(job->callbacks)) {
                    return;
                }
                s.keep_images_of(*job->prompt);
                s.history = std::move(job->messages);
                job->bound = bind_answer(s, job->request.generate.n_predict);
                peak = std::max(peak, bytes_of_decoding() + s.peak_kv);
                prefilling = nullptr;
                decoding.push_back(job);
            });
            // with nobody to wait for it a step is one part, so that news are heard
        } while (prefilling != nullptr && !decoding.empty() &&
                 state(*prefilling).arriving->work.next_fits(ms_since(start), options.prefill_ms));
    }

    void decode() {
        std::vector<JobPtr> going;
        for (const JobPtr & job : std::vector<JobPtr>(decoding)) {
            bool more = false;
            const bool well = attempt(job, [&] { more = job->generation.advance(state(*job), job->callbacks); });
            if (well && job->result.ttft_ms == 0.0) {
                job->result.ttft_ms = ms_since(job->submitted);
            }
            if (well && more) {
                going.push_back(job);
            } else if (well) {
                end(job, RequestEnd::answered, nullptr);
            }
        }
        if (going.empty()) {
            return;
        }
        const auto start = Clock::now();
        while (!going.empty() && !decode(going)) {
            // out of memory, as a rule: the newest makes room, the others go on with the tokens they have
            const JobPtr newest = going.back();
            going.pop_back();
            end(newest, RequestEnd::failed, failure);
        }
        for (const JobPtr & job : going) {
            Session::Impl & s = state(*job);
            s.pending.clear();
            s.timings.decode_ms += ms_since(start);
            ++s.timings.n_decoded;
        }
    }

    /// False, with `failure` set and nothing changed, if the step was impossible.
    bool decode(const std::vector<JobPtr> & going) {
        std::vector<Session::Impl *> sessions;
        std::vector<int32_t> tokens;
        for (const JobPtr & job : going) {
            sessions.push_back(&state(*job));
            tokens.push_back(sessions.back()->pending[0]);
        }
        try {
            decode_together(runner, sessions, tokens);
            return true;
        } catch (...) {
            failure = std::current_exception();
            return false;
        }
    }

    bool step() {
        end_cancelled();
        admit();
        const bool works = prefilling != nullptr || !decoding.empty();
        decode();
        prefill();
        if (decoding.empty()) {
            runner.release();
        }
        const JobPtr next = first_waiting();
        if (!works && next != nullptr && next->preparing.valid()) {
            next->preparing.wait_for(kWait);
        }
        publish();
        if (thrown) {
            std::rethrow_exception(std::exchange(thrown, nullptr));
        }
        return works || next != nullptr;
    }

    [[nodiscard]] uint64_t bytes_of_decoding() const {
        uint64_t bytes = 0;
        for (const JobPtr & job : decoding) {
            bytes += kv_bytes_now(state(*job));
        }
        return bytes;
    }

    void publish() {
        const uint64_t bytes = bytes_of_decoding() + (prefilling ? kv_bytes_now(state(*prefilling)) : 0);
        peak = std::max(peak, bytes);
        const std::lock_guard lock(mutex);
        published = {static_cast<int32_t>(waiting.size()),
                     prefilling ? 1 : 0,
                     static_cast<int32_t>(decoding.size()),
                     bytes,
                     admitted(),
                     peak};
    }
};

BatchEngine::BatchEngine(std::shared_ptr<const Model> model, const BatchOptions & options)
    : impl_(std::make_unique<Impl>(std::move(model), options)) {}

BatchEngine::~BatchEngine() {
    for (const auto & [id, job] : impl_->alive) {
        job->cancelled = true;  // an image half-way is not finished
    }
}

uint64_t BatchEngine::submit(Request request) {
    return impl_->submit(std::move(request));
}

bool BatchEngine::cancel(uint64_t id) {
    return impl_->cancel(id);
}

bool BatchEngine::step() {
    return impl_->step();
}

void BatchEngine::run(const std::stop_token & stop) {
    while (!stop.stop_requested()) {
        if (!impl_->step()) {
            std::unique_lock lock(impl_->mutex);
            impl_->came.wait(lock, stop, [&] { return !impl_->waiting.empty(); });
        }
    }
}

BatchUsage BatchEngine::usage() const {
    const std::lock_guard lock(impl_->mutex);
    return impl_->published;
}

}  // namespace kvsieve
