// SPDX-License-Identifier: MIT
// Rows that leave: compaction by a plan, eviction while decoding, taking new tokens back.
#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <numeric>
#include <string>
#include <utility>

#include "cache/check_plan.h"
#include "cache/ragged_kv_cache.h"
#include "kvsieve/error.h"

namespace kvsieve {

namespace {

/// Slots of the wanted positions; -1 where a position is not held. Both inputs without duplicates, wanted ascending.
std::vector<int32_t> find_slots(std::span<const int32_t> held, bool held_ascends, const std::vector<int32_t> & wanted) {
    std::vector<int32_t> by_position(held.size());
    std::iota(by_position.begin(), by_position.end(), 0);
    if (!held_ascends) {
        std::sort(by_position.begin(), by_position.end(),
                  [&](int32_t a, int32_t b) { return held[static_cast<size_t>(a)] < held[static_cast<size_t>(b)]; });
    }
    std::vector<int32_t> slots(wanted.size(), -1);
    size_t j = 0;
    for (size_t i = 0; i < wanted.size(); ++i) {
        while (j < by_position.size() && held[static_cast<size_t>(by_position[j])] < wanted[i]) {
            ++j;
        }
        if (j < by_position.size() && held[static_cast<size_t>(by_position[j])] == wanted[i]) {
            slots[i] = by_position[j];
        }
    }
    return slots;
}

/// Moves the rows at ascending slots to the front of an extent, run by run.
void pull_rows(uint8_t * extent, size_t row_bytes, const std::vector<int32_t> & slots) {
    for (size_t i = 0; i < slots.size();) {
        size_t end = i + 1;
        while (end < slots.size() && slots[end] == slots[end - 1] + 1) {
            ++end;
        }
        const auto first = static_cast<size_t>(slots[i]);
        if (first != i) {
            std::memmove(extent + i * row_bytes, extent + first * row_bytes, (end - i) * row_bytes);
        }
        i = end;
    }
}

/// The same for slots in any order, through a buffer of slots.size() rows.
void gather_rows(uint8_t * extent, size_t row_bytes, const std::vector<int32_t> & slots,
                 std::vector<uint8_t> & buffer) {
    for (size_t i = 0; i < slots.size(); ++i) {
        std::memcpy(buffer.data() + i * row_bytes, extent + static_cast<size_t>(slots[i]) * row_bytes, row_bytes);
    }
    if (!slots.empty()) {
        std::memcpy(extent, buffer.data(), slots.size() * row_bytes);
    }
}

}  // namespace

RaggedKvCache::Slots RaggedKvCache::slots_of(int32_t il, const LayerPlan & plan) const {
    check_layer_plan(plan, il, params_.n_head_kv, std::numeric_limits<int32_t>::max());
    const Layer & layer = layers_[static_cast<size_t>(il)];
    Slots slots(layer.heads.size());
    for (size_t g = 0; g < slots.size(); ++g) {
        const std::vector<int32_t> & kept = plan.of_head(static_cast<int32_t>(g));
        slots[g] = find_slots(layer.heads[g].positions, layer.order.empty() && !layer.shuffled, kept);
        const auto missing = std::find(slots[g].begin(), slots[g].end(), -1);
        if (missing != slots[g].end()) {
            const auto at = static_cast<size_t>(missing - slots[g].begin());
            throw Error(ErrorCode::invalid_argument, "plan: layer " + std::to_string(il) + ", KV head " +
                                                         std::to_string(g) + " keeps position " +
                                                         std::to_string(kept[at]) + ", which the cache does not hold");
        }
    }
    return slots;
}

void RaggedKvCache::keep_slots(Layer & layer, const Slots & slots,
                               const std::vector<std::vector<MergedSlots>> & merged) const {
    std::vector<uint8_t> buffer;
    std::vector<std::vector<int32_t>> positions(slots.size());
    const bool ascending = layer.order.empty() && !layer.shuffled;
    for (size_t g = 0; g < slots.size(); ++g) {
        if (!ascending) {
            buffer.resize(std::max(buffer.size(), slots[g].size() * format(layer.heads[g]).bytes));
        }
        positions[g].reserve(slots[g].size() + kMaxSpareRows);
        for (const int32_t slot : slots[g]) {
            positions[g].push_back(layer.heads[g].positions[static_cast<size_t>(slot)]);
        }
    }
    // Nothing throws from here on.
    merge_rows(layer, merged);
    for (size_t g = 0; g < slots.size(); ++g) {
        Head & head = layer.heads[g];
        for (const size_t offset : {head.k_offset, head.v_offset}) {
            uint8_t * extent = layer.arena.data() + offset;
            if (ascending) {
                pull_rows(extent, format(head).bytes, slots[g]);
            } else {
                gather_rows(extent, format(head).bytes, slots[g], buffer);
            }
        }
        // A list that fits the spare rows it will have after give_back(); a barely shorter one stays as it is.
        if (head.capacity > static_cast<int32_t>(positions[g].size()) + kMaxSpareRows) {
            head.positions = std::move(positions[g]);
        } else {
            head.positions.assign(positions[g].begin(), positions[g].end());
        }
    }
    layer.order = {};
    layer.shuffled = false;
    give_back(layer);
}

void RaggedKvCache::compact(int32_t il, const LayerPlan & plan) {
    Layer & layer = layer_at(il, "compact");
    try {
        const Slots slots = slots_of(il, plan);
        check_types(il, plan);
        keep_slots(layer, slots, merged_slots(il, plan));
        if (!plan.types.empty()) {
            convert(layer, il, plan.types);
        }
    } catch (const std::bad_alloc &) {
        throw Error(ErrorCode::runtime, "out of memory: compacting layer " + std::to_string(il) + " of the KV cache");
    }
}

void RaggedKvCache::compact(const Plan & plan) {
    if (plan.layers.size() != layers_.size()) {
        throw Error(ErrorCode::invalid_argument, "plan: " + std::to_string(plan.layers.size()) +
                                                     " layers, the cache has " + std::to_string(layers_.size()));
    }
    try {
        for (size_t il = 0; il < layers_.size(); ++il) {
            static_cast<void>(slots_of(static_cast<int32_t>(il), plan.layers[il]));
            static_cast<void>(merged_slots(static_cast<int32_t>(il), plan.layers[il]));
            check_types(static_cast<int32_t>(il), plan.layers[il]);
        }
    } catch (const std::bad_alloc &) {
        throw Error(ErrorCode::runtime, "out of memory: checking a plan of the KV cache");
    }
    for (size_t il = 0; il < layers_.size(); ++il) {
        compact(static_cast<int32_t>(il), plan.layers[il]);
    }
}

/// Makes `order` cover all rows: what append() added since stands behind, in the order of time.
void RaggedKvCache::complete_order(Layer & layer) const {
    const size_t n_rows = layer.heads[0].positions.size();
    const size_t known = layer.order.size();
    if (layer.order.capacity() < n_rows) {
        layer.order.reserve(std::max(n_rows, static_cast<size_t>(layer.heads[0].capacity)));
    }
    layer.order.resize(n_rows);
    std::iota(layer.order.begin() + static_cast<std::ptrdiff_t>(known), layer.order.end(), static_cast<int32_t>(known));
}

void RaggedKvCache::remove_logical(Layer & layer, int32_t logical_slot, int32_t n) const noexcept {
    std::vector<int32_t> & order = layer.order;
    for (int32_t i = 0; i < n; ++i) {
        const auto slot = static_cast<size_t>(order[static_cast<size_t>(logical_slot)]);
        order.erase(order.begin() + logical_slot);
        const size_t last = order.size();
        if (slot != last) {
            // The last physical row is the newest unless several were appended at once: search from the new end.
            *std::find(order.rbegin(), order.rend(), static_cast<int32_t>(last)) = static_cast<int32_t>(slot);
        }
        for (Head & head : layer.heads) {
            drop_slot(head, layer, slot);
        }
    }
}

/// The head's last row takes the place of the one at `slot`.
void RaggedKvCache::drop_slot(Head & head, Layer & layer, size_t slot) const noexcept {
    const size_t last = head.positions.size() - 1, row_bytes = format(head).bytes;
    if (slot != last) {
        for (const size_t offset : {head.k_offset, head.v_offset}) {
            uint8_t * extent = layer.arena.data() + offset;
            std::memcpy(extent + slot * row_bytes, extent + last * row_bytes, row_bytes);
        }
        head.positions[slot] = head.positions[last];
    }
    head.positions.pop_back();
}

void RaggedKvCache::evict(int32_t il, int32_t logical_slot, int32_t n) {
    Layer & layer = layer_at(il, "evict");
    const size_t n_rows = layer.heads[0].positions.size();
    if (layer.shuffled) {
        throw Error(ErrorCode::invalid_argument, "KV cache: evict by rank after single rows of layer " +
                                                     std::to_string(il) + " were removed by slot");
    }
    for (size_t g = 1; g < layer.heads.size(); ++g) {
        if (layer.heads[g].positions.size() != n_rows) {
            throw Error(ErrorCode::invalid_argument,
                        "KV cache: evict needs the same number of rows in every head of layer " + std::to_string(il) +
                            ", head 0 has " + std::to_string(n_rows) + " and head " + std::to_string(g) + " has " +
                            std::to_string(layer.heads[g].positions.size()));
        }
    }
    if (logical_slot < 0 || n < 0 || static_cast<int64_t>(logical_slot) + n > static_cast<int64_t>(n_rows)) {
        throw Error(ErrorCode::invalid_argument, "KV cache: cannot evict " + std::to_string(n) + " rows at slot " +
                                                     std::to_string(logical_slot) + " of layer " + std::to_string(il) +
                                                     ", which has " + std::to_string(n_rows) + " rows");
    }
    if (n == 0) {
        return;
    }
    try {
        complete_order(layer);
    } catch (const std::bad_alloc &) {
        throw Error(ErrorCode::runtime, "out of memory: the order of layer " + std::to_string(il) + " of the KV cache");
    }
    remove_logical(layer, logical_slot, n);
    give_back(layer);
}

void RaggedKvCache::remove(int32_t il, int32_t g, std::span<const int32_t> slots) {
    static_cast<void>(head_at(il, g, "remove"));
    Layer & layer = layers_[static_cast<size_t>(il)];
    Head & head = layer.heads[static_cast<size_t>(g)];
    const std::string where = "KV cache: remove from layer " + std::to_string(il) + ", KV head " + std::to_string(g);
    if (!layer.order.empty()) {
        throw Error(ErrorCode::invalid_argument, where + ": rows of this layer were evicted by rank before");
    }
    auto before = static_cast<int32_t>(head.positions.size());
    for (const int32_t slot : slots) {
        if (slot < 0 || slot >= before) {
            throw Error(ErrorCode::invalid_argument, where + ": slot " + std::to_string(slot) +
                                                         ", expected descending slots in [0, " +
                                                         std::to_string(before) + ")");
        }
        before = slot;
    }
    for (const int32_t slot : slots) {
        layer.shuffled = layer.shuffled || slot + 1 != static_cast<int32_t>(head.positions.size());
        drop_slot(head, layer, static_cast<size_t>(slot));
    }
    give_back(layer);
}

void RaggedKvCache::truncate(int32_t position) {
    // Rows that leave, per layer and head: [L][G].
    const auto n_behind = [&](const Head & head) {
        return std::count_if(head.positions.begin(), head.positions.end(), [&](int32_t p) { return p >= position; });
    };
    for (size_t il = 0; il < layers_.size(); ++il) {
        const Layer & layer = layers_[il];
        for (size_t g = 1; g < layer.heads.size() && !layer.order.empty(); ++g) {
            if (n_behind(layer.heads[g]) != n_behind(layer.heads[0]) ||
                layer.heads[g].positions.size() != layer.heads[0].positions.size()) {
                throw Error(ErrorCode::invalid_argument, "KV cache: cannot truncate to position " +
                                                             std::to_string(position) + ": the heads of layer " +
                                                             std::to_string(il) +
                                                             " would lose different numbers of rows after evictions");
            }
        }
    }
    for (Layer & layer : layers_) {
        if (layer.shuffled) {
            for (Head & head : layer.heads) {
                for (size_t slot = head.positions.size(); slot-- > 0;) {
                    if (head.positions[slot] >= position) {
                        drop_slot(head, layer, slot);
                    }
                }
            }
        } else if (layer.order.empty()) {
            for (Head & head : layer.heads) {
                head.positions.resize(head.positions.size() - static_cast<size_t>(n_behind(head)));
            }
        } else {
            complete_order(layer);
            const auto n = static_cast<int32_t>(n_behind(layer.heads[0]));
            remove_logical(layer, static_cast<int32_t>(layer.order.size()) - n, n);
        }
        for (Head & head : layer.heads) {
            head.next_position = std::min(head.next_position, std::max(position, 0));
        }
        give_back(layer);
    }
}

}  // namespace kvsieve
