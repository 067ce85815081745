// SPDX-License-Identifier: MIT
// PrefixKV (arXiv 2412.03409): every layer keeps the prefix of its ranked tokens that holds the same share of
// attention, found by one search over all layers, or takes its budget from a profile; rows are evicted while
// decoding too. The first and the last token stay.
#include "policy/compose.h"
#include "policy/methods/methods.h"
#include "policy/params.h"

namespace kvsieve {
namespace {

std::unique_ptr<Method> make(const MethodOptions & options) {
    const BoundParams params(prefixkv_info(), options);
    return compose(
        {.name = "prefixkv",
         .scorer = importance_scorer(),
         .allocator = options.profile ? profile_allocator(*options.profile) : prefix_search_allocator(options.keep),
         .scope = Scope::middle,
         .keep_all_rows = !options.profile && options.keep == 1});
}

}  // namespace

MethodInfo prefixkv_info() {
    return {.name = "prefixkv",
            .paper = "arXiv 2412.03409",
            .summary = "Keeps in each layer the ranked prefix of one common attention share, or a profile's budgets.",
            .section = "prefixkv",
            .keep_of = "all rows",
            .takes_profile = true,
            .make = make};
}

}  // namespace kvsieve
