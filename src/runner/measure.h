// SPDX-License-Identifier: MIT
// All cells of the grid on one sample, from one prefill.
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

namespace kvsieve {

struct MeasureOptions {
    std::vector<std::string> metrics = {};  ///< of parse_metrics()
    int32_t n_ctx = 0;                      ///< as SessionOptions
    std::string system = {};
    std::string chat_template = {};  ///< as SessionOptions
    int32_t n_predict = 64;          ///< most tokens of a generated answer
    bool with_image = false;  ///< the first image and where its tokens stayed belong to the results, for overlays
};

/// Where the time of an evaluation went, in milliseconds, summed over threads.
struct MeasureTimes {
    double vision = 0, prefill = 0;  ///< of the shared prefill, with what all methods observe
    double plan = 0, compact = 0;    ///< planning; making the cells' caches
    double perplexity = 0, generate = 0;

    MeasureTimes & operator+=(const MeasureTimes & other);
};

struct MeasureCallbacks {
    std::function<void(const CellResult &)> on_cell;    ///< finished, in the order of the grid
    std::function<void(const SampleFacts &)> on_facts;  ///< once, before the first cell
    std::function<bool()> is_cancelled;                 ///< true ends the work with Error{cancelled}
};

/// Measures every cell of `grid` on the sample. The prompt is prefilled once; each cell has a copy of its cache that
/// its method compressed (two where perplexity and a generation are wanted). A cell that its method refuses, or that
/// no keep fits into the budget, is reported with `error`.
/// Throws Error{bad_input} with the line's number for a sample that cannot be measured at all: an answer of no tokens,
/// a token that the model does not have, an image that is none, a prompt and answer beyond the context.
MeasureTimes measure_sample(const std::shared_ptr<const Model> & model, const Sample & sample,
                            std::span<const CellKey> grid, const MeasureOptions & options,
                            const MeasureCallbacks & callbacks);

}  // namespace kvsieve
