// SPDX-License-Identifier: MIT
// Baseline: nothing is observed, nothing is dropped.
#include "policy/parts.h"

namespace kvsieve {

MethodFile full_file() {
    return {.method = MethodRow{.name = "full",
                                .summary = "Keeps every row; the reference that the others are measured against.",
                                .scorer = "recent",
                                .allocator = "uniform",
                                .takes_keep = false},
            .scorer = ScorerPart{.name = "recent",
                                 .summary = "The later a token, the higher its score; nothing is observed.",
                                 .make = [](const BoundParams &) { return constant_scorer(); }},
            .allocator = AllocatorPart{.name = "uniform",
                                       .summary = "n(T) rows in every layer.",
                                       .make = [](const BoundParams & p) { return uniform_allocator(p.keep()); }}};
}

}  // namespace kvsieve
