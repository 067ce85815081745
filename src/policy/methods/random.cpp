// SPDX-License-Identifier: MIT
// Baseline: n(T) rows in every layer, chosen at random; the first and the last token stay.
#include "policy/parts.h"

namespace kvsieve {

MethodFile random_file() {
    return {.method = MethodRow{.name = "random",
                                .summary = "Keeps the first and the last row and a random choice of the others, the "
                                           "same number in every layer.",
                                .scorer = "random",
                                .allocator = "uniform",
                                .ends_stay = true},
            .scorer = ScorerPart{.name = "random",
                                 .summary = "Random numbers from the seed, the layer and the position.",
                                 .make = [](const BoundParams & p) { return random_scorer(p.seed()); }}};
}

}  // namespace kvsieve
