// SPDX-License-Identifier: MIT
// Rows of a filled cache that become the mean of several. The Hadamard rotation is linear, so the mean of rotated rows
// is the rotated mean: rows are dequantised, averaged and quantised once, without leaving the rotated basis.
#include <ggml-cpu.h>

#include <algorithm>
#include <string>

#include "cache/check_plan.h"
#include "cache/ragged_kv_cache.h"
#include "kvsieve/error.h"

namespace kvsieve {

std::vector<std::vector<RaggedKvCache::MergedSlots>> RaggedKvCache::merged_slots(int32_t il,
                                                                                 const LayerPlan & plan) const {
    const std::vector<MergeGroup> groups = merge_groups(plan);
    if (groups.empty()) {
        return {};
    }
    const Layer & layer = layers_[static_cast<size_t>(il)];
    std::vector<std::vector<MergedSlots>> out(layer.heads.size());
    for (size_t g = 0; g < out.size(); ++g) {
        std::vector<std::pair<int32_t, int32_t>> held;  // (position, slot)
        for (const int32_t position : layer.heads[g].positions) {
            held.emplace_back(position, static_cast<int32_t>(held.size()));
        }
        std::sort(held.begin(), held.end());
        const auto slot_of = [&](int32_t position) {
            const auto found = std::lower_bound(held.begin(), held.end(), std::pair(position, 0));
            if (found == held.end() || found->first != position) {
                throw Error(ErrorCode::invalid_argument,
                            "plan: layer " + std::to_string(il) + ", KV head " + std::to_string(g) +
                                " merges position " + std::to_string(position) + ", which the cache does not hold");
            }
            return found->second;
        };
        for (const MergeGroup & group : groups) {
            MergedSlots merged{slot_of(group.into), {}};
            for (const int32_t position : group.from) {
                merged.from.push_back(slot_of(position));
            }
            out[g].push_back(std::move(merged));
        }
    }
    return out;
}

void RaggedKvCache::merge_rows(Layer & layer, const std::vector<std::vector<MergedSlots>> & merged) const noexcept {
    const auto d = static_cast<size_t>(params_.head_dim);
    alignas(64) float row[kMaxHeadDim];
    double sum[kMaxHeadDim];
    for (size_t g = 0; g < merged.size(); ++g) {
        const Format & row_format = format(layer.heads[g]);
        const ggml_to_float_t to_float = ggml_get_type_traits(row_format.type)->to_float;
        for (const size_t offset : {layer.heads[g].k_offset, layer.heads[g].v_offset}) {
            uint8_t * extent = layer.arena.data() + offset;
            for (const MergedSlots & group : merged[g]) {
                std::fill_n(sum, d, 0.0);
                const auto add = [&](int32_t slot) {
                    to_float(extent + static_cast<size_t>(slot) * row_format.bytes, row, params_.head_dim);
                    std::transform(row, row + d, sum, sum, [](float x, double y) { return y + x; });
                };
                add(group.into);
                std::for_each(group.from.begin(), group.from.end(), add);
                const double n = 1.0 + static_cast<double>(group.from.size());
                std::transform(sum, sum + d, row, [&](double x) { return static_cast<float>(x / n); });
                encode_row(row, row_format.type, 0, extent + static_cast<size_t>(group.into) * row_format.bytes);
            }
        }
    }
}

}  // namespace kvsieve
