// SPDX-License-Identifier: MIT
// PrefixKV (arXiv 2412.03409): every layer keeps the prefix of its ranked tokens that holds the same share of
// attention, found by one search over all layers, or takes its budget from a profile; rows are evicted while
// decoding too. The first and the last token stay.
#include "policy/parts.h"

namespace kvsieve {

MethodFile prefixkv_file() {
    return {
        .method =
            MethodRow{.name = "prefixkv",
                      .paper = "arXiv 2412.03409",
                      .summary = "Keeps in each layer the ranked prefix of one common attention share, or a profile's "
                                 "budgets.",
                      .scorer = "importance",
                      .allocator = "prefixkv"},
        .scorer = ScorerPart{.name = "importance",
                             .summary = "Column sums of attention, mean over all query heads.",
                             .mass = true,
                             .make = [](const BoundParams &) { return importance_scorer(); }},
        .allocator = AllocatorPart{.name = "prefixkv",
                                   .summary = "In every layer the rows that hold one common share of its total score; "
                                              "evicts while decoding.",
                                   .needs_mass = true,
                                   .layer_only = true,
                                   .ends_stay = true,
                                   .takes_profile = true,
                                   .make = [](const BoundParams & p) {
                                       return p.profile() ? profile_allocator(*p.profile())
                                                          : prefix_search_allocator(p.keep());
                                   }}};
}

}  // namespace kvsieve
