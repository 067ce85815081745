// SPDX-License-Identifier: MIT
// Baseline: nothing is observed, nothing is dropped.
#include "policy/compose.h"
#include "policy/methods/methods.h"
#include "policy/params.h"

namespace kvsieve {
namespace {

std::unique_ptr<Method> make(const MethodOptions & options) {
    const BoundParams params(full_info(), options);
    return compose({.name = "full",
                    .scorer = constant_scorer(),
                    .allocator = full_allocator(),
                    .scope = Scope::all,
                    .keep_all_rows = true});
}

}  // namespace

MethodInfo full_info() {
    return {.name = "full",
            .paper = "",
            .summary = "Keeps every row; the reference that the others are measured against.",
            .section = "full",
            .keep_of = "",
            .make = make};
}

}  // namespace kvsieve
