// SPDX-License-Identifier: MIT
// Where extents stand in a layer's arena, and how they move when it grows or shrinks.
#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "cache/ragged_kv_cache.h"
#include "kvsieve/error.h"

namespace kvsieve {

namespace {

/// Largest number of rows of one extent.
constexpr int32_t kMaxRows = 1 << 30;

}  // namespace

/// Capacity for `rows` rows: 17 to 32 spare ones, but none behind what is expected.
int32_t RaggedKvCache::capacity_for(const Head & head, int32_t rows) const noexcept {
    const auto rounded_up = [unit = row_unit(format(head).bytes)](int32_t n) { return (n + unit - 1) / unit * unit; };
    const int32_t with_spare = (rows + kMaxSpareRows) / 16 * 16;
    return std::max(rounded_up(rows),
                    head.expected < with_spare ? std::min(rounded_up(head.expected), with_spare) : with_spare);
}

template <typename F>
size_t RaggedKvCache::arena_bytes(const Layer & layer, F && capacity) const noexcept {
    size_t bytes = 0;
    for (int32_t g = 0; g < params_.n_head_kv; ++g) {
        bytes += 2 * static_cast<size_t>(capacity(g)) * format(layer.heads[static_cast<size_t>(g)]).bytes;
    }
    return bytes;
}

/// Moves the extents to their new places; the arena is large enough for the old and the new layout. First what moves
/// to the front, front to back, then what moves to the back, back to front: no extent is overwritten before it moved.
template <typename F>
void RaggedKvCache::place_extents(Layer & layer, F && capacity) const noexcept {
    const int32_t n_head = params_.n_head_kv;
    const auto row_bytes = [&](int32_t e) { return format(layer.heads[static_cast<size_t>(e % n_head)]).bytes; };
    const auto extent_bytes = [&](int32_t e) { return static_cast<size_t>(capacity(e % n_head)) * row_bytes(e); };
    const auto move_to = [&](int32_t e, size_t to) {
        Head & head = layer.heads[static_cast<size_t>(e % n_head)];
        size_t & from = e < n_head ? head.k_offset : head.v_offset;
        if (!head.positions.empty()) {
            std::memmove(layer.arena.data() + to, layer.arena.data() + from, head.positions.size() * row_bytes(e));
        }
        from = to;
    };
    const auto offset_of = [&](int32_t e) {
        const Head & head = layer.heads[static_cast<size_t>(e % n_head)];
        return e < n_head ? head.k_offset : head.v_offset;
    };
    size_t end = 0;
    for (int32_t e = 0; e < 2 * n_head; ++e) {
        if (end < offset_of(e)) {
            move_to(e, end);
        }
        end += extent_bytes(e);
    }
    for (int32_t e = 2 * n_head - 1; e >= 0; --e) {
        end -= extent_bytes(e);
        if (end > offset_of(e)) {
            move_to(e, end);
        }
    }
    for (int32_t g = 0; g < n_head; ++g) {
        layer.heads[static_cast<size_t>(g)].capacity = capacity(g);
    }
}

void RaggedKvCache::make_room(Layer & layer, int32_t il, int32_t n_more) const {
    bool enough = true;
    for (const Head & head : layer.heads) {
        const auto rows = static_cast<int32_t>(head.positions.size());
        if (n_more > kMaxRows - rows) {
            throw Error(ErrorCode::too_large, "KV cache: layer " + std::to_string(il) + " would hold " +
                                                  std::to_string(static_cast<int64_t>(rows) + n_more) +
                                                  " rows in a head, the limit is " + std::to_string(kMaxRows));
        }
        enough = enough && head.capacity - rows >= n_more;
    }
    if (enough) {
        return;
    }
    const auto capacity = [&](int32_t g) {
        const Head & head = layer.heads[static_cast<size_t>(g)];
        return capacity_for(head, static_cast<int32_t>(head.positions.size()) + n_more);
    };
    for (int32_t g = 0; g < params_.n_head_kv; ++g) {
        layer.heads[static_cast<size_t>(g)].positions.reserve(static_cast<size_t>(capacity(g)));
    }
    const size_t bytes = arena_bytes(layer, capacity);
    layer.arena.grow(bytes, "KV cache, layer " + std::to_string(il));
    place_extents(layer, capacity);
    layer.arena.shrink(bytes);
}

/// For an empty layer: extents for these positions, which the heads get afterwards.
void RaggedKvCache::make_room_for(Layer & layer, int32_t il,
                                  const std::vector<std::vector<int32_t>> & positions) const {
    const auto capacity = [&](int32_t g) {
        return capacity_for(layer.heads[static_cast<size_t>(g)],
                            static_cast<int32_t>(positions[static_cast<size_t>(g)].size()));
    };
    const size_t bytes = arena_bytes(layer, capacity);
    layer.arena.grow(bytes, "KV cache, layer " + std::to_string(il));
    place_extents(layer, capacity);
    layer.arena.shrink(bytes);
}

void RaggedKvCache::give_back(Layer & layer) const noexcept {
    const auto has_too_much = [](const Head & head) {
        return head.capacity > static_cast<int32_t>(head.positions.size()) + kMaxSpareRows;
    };
    if (std::any_of(layer.heads.begin(), layer.heads.end(), has_too_much)) {
        tighten(layer);
    }
}

void RaggedKvCache::tighten(Layer & layer) const noexcept {
    // No extent grows beyond its capacity, so the arena as it is holds the new layout.
    const auto capacity = [&](int32_t g) {
        const Head & head = layer.heads[static_cast<size_t>(g)];
        return std::min(head.capacity, capacity_for(head, static_cast<int32_t>(head.positions.size())));
    };
    const size_t bytes = arena_bytes(layer, capacity);
    place_extents(layer, capacity);
    layer.arena.shrink(bytes);
}

void RaggedKvCache::expect_rows(int32_t il, std::span<const int32_t> most) {
    Layer & layer = layer_at(il, "expect_rows");
    if (most.size() != layer.heads.size()) {
        throw Error(ErrorCode::invalid_argument,
                    "KV cache: expect_rows() was given " + std::to_string(most.size()) +
                        " numbers, expected one per KV head: " + std::to_string(layer.heads.size()));
    }
    for (size_t g = 0; g < most.size(); ++g) {
        layer.heads[g].expected = most[g];
    }
    tighten(layer);
    for (Head & head : layer.heads) {
        if (head.positions.capacity() > static_cast<size_t>(head.capacity)) {
            std::vector<int32_t> positions;
            positions.reserve(static_cast<size_t>(head.capacity));
            positions.assign(head.positions.begin(), head.positions.end());
            head.positions = std::move(positions);
        }
    }
}

}  // namespace kvsieve
