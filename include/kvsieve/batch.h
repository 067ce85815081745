// SPDX-License-Identifier: MIT
// Many requests of one model: they decode together, join and leave between steps, and share a budget of bytes.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <stop_token>
#include <string_view>
#include <vector>

#include "kvsieve/engine.h"

namespace kvsieve {

struct BatchOptions {
    /// Bytes that all caches may take together: rows reserved, their positions, and the layer in work of a prefill.
    /// 0 = no limit.
    uint64_t kv_bytes = 0;
    int32_t max_sequences = 16;  ///< that decode together, the one being prefilled included
    /// While others decode, a prefill works at most about so many milliseconds between two of their tokens, or as long
    /// as its longest part takes: half of a layer for a chunk of the prompt.
    double prefill_ms = 100.0;
};

/// How a request ended. `failed`: by an error of its own.
enum class RequestEnd { answered, cancelled, failed };

struct RequestResult {
    uint64_t id = 0;
    RequestEnd end = RequestEnd::answered;
    Answer answer;             ///< as far as it came
    std::exception_ptr error;  ///< what failed; an Error, or what a callback threw
    double waited_ms = 0;      ///< from submit() to the start of the prefill
    double ttft_ms = 0;        ///< from submit() to the first token; 0 if it never came so far
};

/// One question and its first answer. The cache is compressed as `session` asks and given back at the end.
struct Request {
    Turn turn;
    std::vector<int32_t> tokens;  ///< not empty: the prompt, taken literally, in place of `turn`
    SessionOptions session;
    GenerateOptions generate;
    /// Called by the thread that steps. What it throws ends this request (`failed`), not the others.
    std::function<void(std::string_view)> on_text = {};
    /// Once, at the end. `session` is as the request left it, and dies afterwards. What this throws leaves step().
    std::function<void(const RequestResult & result, const Session & session)> on_done = {};
};

/// What an engine holds between two steps.
struct BatchUsage {
    int32_t n_waiting = 0;
    int32_t n_prefilling = 0;  ///< 0 or 1
    int32_t n_decoding = 0;
    uint64_t kv_bytes = 0;           ///< taken now
    uint64_t kv_bytes_admitted = 0;  ///< that what runs may take until its end, at most BatchOptions::kv_bytes
    uint64_t kv_bytes_peak = 0;      ///< most bytes that were taken after any step so far
};

/// Continuous batching. Every step decodes one token of each running sequence at once and works on one prefill.
/// Sequences differ in length, image, method, budget and KV type as they like. A sequence's plan, its evictions and
/// its attention are those of a Session alone; its logits differ by what a matrix multiplication of several columns
/// rounds differently.
///
/// Admission: requests start in the order in which they came. One starts when the most that its cache can take (all
/// rows of its prompt and a layer in work, or where a plan's size is known beforehand the kept rows and one layer;
/// then the rows of n_predict tokens) fits beside the most that the running ones can still take. So nothing is ever
/// evicted, paused or refused for lack of bytes after it started.
///
/// Threads: submit(), cancel() and usage() may be called at any time from any thread, callbacks included; step() and
/// run() from one thread at a time. Images are encoded in a thread of the engine's own, for one request ahead.
class BatchEngine {
  public:
    /// Throws Error{invalid_argument} for options out of range.
    BatchEngine(std::shared_ptr<const Model> model, const BatchOptions & options);
    /// Requests that have not ended are dropped, without on_done.
    ~BatchEngine();
    BatchEngine(const BatchEngine &) = delete;
    BatchEngine & operator=(const BatchEngine &) = delete;

    /// Queues a request and returns its id, never 0. Throws what Session's constructor throws, and
    /// Error{invalid_argument} for wrong options of generation, an empty prompt, or sessions that attend with ggml's
    /// operation. A prompt that is wrong or can never fit ends the request with an error.
    uint64_t submit(Request request);
    /// The request ends before its next token, chunk or layer, with on_done. False if there is none such (any more).
    bool cancel(uint64_t id);

    /// One token of every running sequence, and prefill. False if there was nothing to do.
    bool step();
    /// Steps until `stop` is asked for, and waits where nothing is to do.
    void run(const std::stop_token & stop);

    [[nodiscard]] BatchUsage usage() const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace kvsieve
