// SPDX-License-Identifier: MIT
// AirCache (arXiv 2503.23956): visual rows ranked by what the elite text queries attend to; layers get budgets by
// the strength and the skewness of these scores. Everything that is not visual stays.
#include "policy/methods/aircache.h"

#include "policy/parts.h"

namespace kvsieve {

MethodFile aircache_file() {
    return {.method = MethodRow{.name = "aircache",
                                .paper = "arXiv 2503.23956",
                                .summary = "Drops visual rows that the key text queries ignore, with layer budgets by "
                                           "strength and skewness.",
                                .scorer = "aircache",
                                .allocator = "aircache",
                                .visual = true},
            .scorer =
                ScorerPart{.name = "aircache",
                           .summary = "Attention of the key text queries behind the image on the visual tokens.",
                           .mass = true,
                           .visual_only = true,
                           .params = {{.name = "alpha",
                                       .help = "share of the highest text relevance that makes a query elite",
                                       .def = 0.9,
                                       .min = 0,
                                       .max = 1},
                                      {.name = "queries",
                                       .help = "queries that score: the elite set, the last prompt token, or all text "
                                               "behind the image",
                                       .def = std::string("elite"),
                                       .choices = {"elite", "last", "all"}}},
                           .make =
                               [](const BoundParams & p) {
                                   return elite_scorer(p.number("alpha"),
                                                       static_cast<EliteQueries>(p.choice("queries")));
                               }},
            .allocator = AllocatorPart{.name = "aircache",
                                       .summary = "Budgets by the strength and the skewness of a layer's scores, exact "
                                                  "in total.",
                                       .needs_mass = true,
                                       .params = {{.name = "weights",
                                                   .help = "what weighs the layers' budgets",
                                                   .def = std::string("both"),
                                                   .choices = {"both", "strength", "skew", "uniform"}}},
                                       .make = [](const BoundParams & p) {
                                           return strength_share_allocator(
                                               p.keep(), static_cast<LayerWeights>(p.choice("weights")));
                                       }}};
}

}  // namespace kvsieve
