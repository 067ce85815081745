// SPDX-License-Identifier: MIT
// The samples of a data set, one after the other on each thread, into a results file.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "eval/data.h"
#include "eval/results.h"
#include "kvsieve/engine.h"
#include "runner/measure.h"

namespace kvsieve {

struct EvaluationOptions {
    MeasureOptions measure;
    int32_t n_threads = 1;         ///< samples measured at the same time
    bool skip_bad = false;         ///< leave out and count samples that cannot be measured
    std::vector<size_t> overlays;  ///< indices of the samples whose images go into the results
};

struct EvaluationCallbacks {
    std::function<void(size_t n_done, size_t n_all)> on_progress;  ///< cells, of what was left to do; serialised
    std::function<void(const std::string & why)> on_bad;           ///< a sample left out; serialised
    std::function<bool()> is_cancelled;
};

struct EvaluationSummary {
    size_t n_measured = 0;  ///< samples, by this call
    size_t n_there = 0;     ///< samples that the file had
    size_t n_bad = 0;
    MeasureTimes times;
};

/// Measures the chosen samples (indices into data.samples) that `file` does not have whole; each finished cell is
/// appended at once. The model has to be loaded with one thread: then neither the number of threads here nor the
/// choice of samples changes a result. Throws the first Error of a thread; what was finished before is in the file.
EvaluationSummary evaluate(const std::shared_ptr<const Model> & model, const DataSet & data,
                           std::span<const size_t> chosen, std::span<const CellKey> grid, ResultsFile & file,
                           const EvaluationOptions & options, const EvaluationCallbacks & callbacks = {});

}  // namespace kvsieve
