// SPDX-License-Identifier: MIT
// One cell of the grid on one sample: a compressed session, measured.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "eval/data.h"
#include "eval/results.h"
#include "kvsieve/engine.h"

namespace kvsieve {

struct CellOptions {
    std::vector<std::string> metrics;  ///< of parse_metrics()
    std::string chat_template;         ///< as SessionOptions; "raw" = none
    int32_t n_predict = 64;            ///< most tokens of a generated answer
};

/// Measures one cell. `reference` is the generation of the full f16 cache, for rouge_l. Every call has its own prefill
/// (two where both perplexity and a generation are wanted). A cell that the method refuses, or that no keep fits into
/// the budget, comes back with `error`. Throws Error{bad_input} with the line's number for a sample that cannot be
/// measured at all: an answer of no tokens, a token that the model does not have.
[[nodiscard]] CellResult measure_cell(const std::shared_ptr<const Model> & model, const Sample & sample,
                                      const CellKey & key, const std::string & reference, const CellOptions & options);

}  // namespace kvsieve
