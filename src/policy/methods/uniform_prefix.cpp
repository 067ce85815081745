// SPDX-License-Identifier: MIT
// PrefixKV's baseline for ablations: its importance and its eviction while decoding, the same budget in every layer.
#include "policy/parts.h"

namespace kvsieve {

MethodFile uniform_prefix_file() {
    return {.method = MethodRow{.name = "uniform_prefix",
                                .paper = "arXiv 2412.03409",
                                .summary = "PrefixKV's ranking with the same budget in every layer.",
                                .scorer = "importance",
                                .allocator = "uniform_prefix"},
            .allocator = AllocatorPart{
                .name = "uniform_prefix",
                .summary = "trunc(T (1 - keep)) rows less in every layer; evicts while decoding.",
                .layer_only = true,
                .ends_stay = true,
                .make = [](const BoundParams & p) { return forget_allocator(p.keep(), ForgetFormula::part); }}};
}

}  // namespace kvsieve
