// SPDX-License-Identifier: MIT
#include "runner/evaluation.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "kvsieve/error.h"

namespace kvsieve {

EvaluationSummary evaluate(const std::shared_ptr<const Model> & model, const DataSet & data,
                           std::span<const size_t> chosen, std::span<const CellKey> grid, ResultsFile & file,
                           const EvaluationOptions & options, const EvaluationCallbacks & callbacks) {
    EvaluationSummary summary;
    std::vector<size_t> open;
    for (const size_t i : chosen) {
        if (file.is_complete(data.samples[i].id)) {
            ++summary.n_there;
        } else {
            open.push_back(i);
        }
    }
    const size_t n_all = open.size() * grid.size();
    size_t n_done = 0;
    std::mutex mutex;  // of all that threads share
    std::exception_ptr failure;
    std::atomic<size_t> next = 0;
    std::atomic<bool> stop = false;

    const auto cancelled = [&] { return stop || (callbacks.is_cancelled && callbacks.is_cancelled()); };
    const auto measure = [&](size_t i) {
        const Sample & sample = data.samples[i];
        MeasureOptions measure_options = options.measure;
        measure_options.with_image = std::ranges::count(options.overlays, i) > 0;
        MeasureCallbacks measured;
        measured.is_cancelled = cancelled;
        measured.on_facts = [&](const SampleFacts & facts) {
            const std::lock_guard lock(mutex);
            file.append(facts);
        };
        measured.on_cell = [&](const CellResult & cell) {
            const std::lock_guard lock(mutex);
            file.append(cell);
            if (callbacks.on_progress) {
                callbacks.on_progress(++n_done, n_all);
            }
        };
        try {
            const MeasureTimes times = measure_sample(model, sample, grid, measure_options, measured);
            const std::lock_guard lock(mutex);
            ++summary.n_measured;
            summary.times += times;
        } catch (const Error & error) {
            if (error.code() != ErrorCode::bad_input) {
                throw;
            }
            const std::string why = data.path.string() + " " + error.what();
            if (!options.skip_bad) {
                throw Error(ErrorCode::bad_input, why);
            }
            const std::lock_guard lock(mutex);
            ++summary.n_bad;
            n_done += grid.size();
            if (callbacks.on_bad) {
                callbacks.on_bad(why);
            }
        }
    };
    const auto work = [&] {
        try {
            for (size_t i = next++; i < open.size() && !stop; i = next++) {
                measure(open[i]);
            }
        } catch (...) {
            const std::lock_guard lock(mutex);
            if (!failure) {
                failure = std::current_exception();
            }
            stop = true;
        }
    };
    {
        std::vector<std::jthread> threads;
        const auto n_threads = std::min(open.size(), static_cast<size_t>(std::max(options.n_threads, 1)));
        for (size_t t = 1; t < n_threads; ++t) {
            threads.emplace_back(work);
        }
        work();
    }
    if (failure) {
        std::rethrow_exception(failure);
    }
    return summary;
}

}  // namespace kvsieve
