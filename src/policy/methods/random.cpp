// SPDX-License-Identifier: MIT
// Baseline: n(T) rows in every layer, chosen at random; the first and the last token stay.
#include "policy/compose.h"
#include "policy/methods/methods.h"
#include "policy/params.h"

namespace kvsieve {
namespace {

std::unique_ptr<Method> make(const MethodOptions & options) {
    const BoundParams params(random_info(), options);
    return compose({.name = "random",
                    .scorer = random_scorer(options.seed),
                    .allocator = uniform_allocator(options.keep),
                    .scope = Scope::middle,
                    .keep_all_rows = options.keep == 1});
}

}  // namespace

MethodInfo random_info() {
    return {.name = "random",
            .paper = "",
            .summary =
                "Keeps the first and the last row and a random choice of the others, the same number in every layer.",
            .section = "random",
            .keep_of = "all rows",
            .make = make};
}

}  // namespace kvsieve
