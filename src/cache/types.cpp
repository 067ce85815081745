// SPDX-License-Identifier: MIT
// Row types that a plan gives to single heads.
#include <ggml-cpu.h>

#include <algorithm>
#include <string>

#include "cache/ragged_kv_cache.h"
#include "kvsieve/error.h"

namespace kvsieve {

void RaggedKvCache::check_types(int32_t il, const LayerPlan & plan) const {
    const auto refuse = [&](const std::string & what) {
        throw Error(ErrorCode::invalid_argument, "plan: layer " + std::to_string(il) + " " + what);
    };
    if (plan.types.empty()) {
        return;
    }
    const Layer & layer = layers_[static_cast<size_t>(il)];
    if (plan.types.size() != 1 && plan.types.size() != layer.heads.size()) {
        refuse("has " + std::to_string(plan.types.size()) +
               " row types, expected one, or one per KV head: " + std::to_string(layer.heads.size()));
    }
    for (size_t g = 0; g < layer.heads.size(); ++g) {
        const KvType type = plan.type_of_head(static_cast<int32_t>(g)), held = layer.heads[g].type;
        if (format(type).bytes == 0) {
            refuse("wants rows of " + std::string(kv_type_name(type)) + ", which a head size of " +
                   std::to_string(params_.head_dim) + " does not allow");
        }
        if (type != held && held != KvType::f16) {
            refuse("wants rows of " + std::string(kv_type_name(type)) + " in KV head " + std::to_string(g) +
                   ", whose rows are " + std::string(kv_type_name(held)) + ", expected f16");
        }
    }
}

/// Quantises f16 rows where they stand, front to back: no row is longer than before. Then the extents move together.
void RaggedKvCache::convert(Layer & layer, int32_t il, const std::vector<KvType> & types) const {
    const auto type_of = [&](size_t g) { return types.size() == 1 ? types[0] : types[g]; };
    bool same = true;
    size_t most = 0;  // bytes of the new layout
    for (size_t g = 0; g < layer.heads.size(); ++g) {
        Head & head = layer.heads[g];
        same = same && type_of(g) == head.type;
        Head as_new(type_of(g));
        as_new.expected = head.expected;
        const auto capacity = static_cast<size_t>(capacity_for(as_new, static_cast<int32_t>(head.positions.size())));
        head.positions.reserve(capacity);
        most += 2 * format(as_new).bytes * capacity;
    }
    if (same) {
        return;
    }
    if (most > layer.arena.size()) {  // a few rows in whole units of a type may take more than they did
        layer.arena.grow(most, "KV cache, layer " + std::to_string(il));
    }
    alignas(64) float row[kMaxHeadDim];
    for (size_t g = 0; g < layer.heads.size(); ++g) {
        Head & head = layer.heads[g];
        const size_t old_bytes = format(head).bytes;
        const bool converts = type_of(g) != head.type;
        head.type = type_of(g);
        const Format & to = format(head);
        head.capacity = converts ? capacity_for(head, static_cast<int32_t>(head.positions.size())) : head.capacity;
        for (const bool is_k : {true, false}) {
            uint8_t * const extent = layer.arena.data() + (is_k ? head.k_offset : head.v_offset);
            for (size_t i = 0; converts && i < head.positions.size(); ++i) {
                ggml_cpu_fp16_to_fp32(reinterpret_cast<const ggml_fp16_t *>(extent + i * old_bytes), row,
                                      params_.head_dim);
                encode_row(row, to.type, is_k ? to.k_block : to.v_block, extent + i * to.bytes);
            }
        }
    }
    tighten(layer);
}

}  // namespace kvsieve
