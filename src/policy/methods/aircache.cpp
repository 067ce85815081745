// SPDX-License-Identifier: MIT
// AirCache (arXiv 2503.23956): visual rows ranked by what the elite text queries attend to; layers get budgets by
// the strength and the skewness of these scores. Everything that is not visual stays.
#include "policy/compose.h"
#include "policy/methods/methods.h"
#include "policy/params.h"

namespace kvsieve {
namespace {

std::unique_ptr<Method> make(const MethodOptions & options) {
    const BoundParams params(aircache_info(), options);
    const auto queries = static_cast<EliteQueries>(params.choice("queries"));
    const auto weights = static_cast<LayerWeights>(params.choice("weights"));
    return compose({.name = "aircache",
                    .scorer = elite_scorer(params.number("alpha"), queries),
                    .allocator = visual_share_allocator(options.keep, weights),
                    .scope = Scope::visual,
                    .needs_visual = true,
                    .keep_all_rows = options.keep == 1});
}

}  // namespace

MethodInfo aircache_info() {
    return {
        .name = "aircache",
        .paper = "arXiv 2503.23956",
        .summary = "Drops visual rows that the key text queries ignore, with layer budgets by strength and skewness.",
        .section = "aircache",
        .keep_of = "visual rows",
        .params = {{.name = "alpha",
                    .help = "share of the highest text relevance that makes a query elite",
                    .def = 0.9,
                    .min = 0,
                    .max = 1},
                   {.name = "queries",
                    .help = "queries that score: the elite set, the last prompt token, or all text behind the image",
                    .def = std::string("elite"),
                    .choices = {"elite", "last", "all"}},
                   {.name = "weights",
                    .help = "what weighs the layers' budgets",
                    .def = std::string("both"),
                    .choices = {"both", "strength", "skew", "uniform"}}},
        .make = make};
}

}  // namespace kvsieve
