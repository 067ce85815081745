// SPDX-License-Identifier: MIT
// The KV cache of one sequence: rows, not masks; every (layer, KV head) holds its own number of rows.
#pragma once

#include <ggml.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cache/arena.h"
#include "cache/hadamard.h"
#include "kvsieve/kv_cache.h"
#include "kvsieve/policy.h"

namespace kvsieve {

/// Largest head_dim that the cache takes.
inline constexpr int32_t kMaxHeadDim = 1024;
/// Most spare rows of an extent after store, compact, evict, truncate, and after append() has used what reserve() gave.
inline constexpr int32_t kMaxSpareRows = 32;

/// Capacities are multiples of so many rows (a power of two, at most 16), so that extents lie back to back and still
/// start 32-byte aligned.
[[nodiscard]] constexpr int32_t row_unit(size_t row_bytes) noexcept {
    int32_t unit = 1;
    while (static_cast<size_t>(unit) * row_bytes % 32 != 0) {
        unit *= 2;
    }
    return unit;
}

/// Throws Error{invalid_argument} for a number that is no type.
[[nodiscard]] ggml_type ggml_type_of(KvType type);

struct KvCacheParams {
    int32_t n_layer = 0;
    int32_t n_head_kv = 0;      ///< G, the same in all layers
    int32_t head_dim = 0;       ///< d of keys and values; a multiple of 32 for quantised types
    KvType type = KvType::f16;  ///< of rows for which no plan names another
    bool rotate = true;         ///< Hadamard rotation of quantised rows (f16 rows are never rotated)
};

/// Half precision rows of one layer's keys or values, [G][n_tokens][d]; strides in elements, 0 = dense.
struct F16Rows {
    const ggml_fp16_t * data = nullptr;
    size_t row_stride = 0;   ///< from token to token of one head; 0 = d
    size_t head_stride = 0;  ///< from head to head; 0 = n_tokens * row_stride
};

/// Float rows of new tokens, [n_tokens][G][d] as a ggml tensor of shape [d, G, n_tokens] has them; strides in
/// elements, 0 = dense.
struct F32Rows {
    const float * data = nullptr;
    size_t head_stride = 0;   ///< from head to head of one token; 0 = d
    size_t token_stride = 0;  ///< from token to token; 0 = G * d
};

/// Rows of one (layer, head), valid until the next call that may move rows: store_layer, compact, reserve, evict,
/// remove, truncate, release. Row i starts at data + i * row_bytes; data is 32-byte aligned.
struct KvRowsView {
    const uint8_t * data = nullptr;
    int32_t n_rows = 0;
    size_t row_bytes = 0;
    KvType type = KvType::f16;
    int32_t rotation = 0;  ///< block for hadamard_rotate() of queries (keys) or outputs (values); 0 = not rotated
};

/// Keys and values of one sequence. Several sequences are several objects.
///
/// Terms: a *position* is a token's index in the sequence, ascending and unique (with M-RoPE the engine maps it to
/// what RoPE saw); a *slot* is a physical row. Attention does not depend on the order of rows, so physical order
/// equals ascending positions only until the first evict() or remove().
///
/// Row types: f16, or ggml's q8_0/q4_0 blocks made by ggml itself; a plan may give each head its own. With `rotate`,
/// quantised rows hold the rotated key and value: rotate queries before attention and the output after it, by the
/// block that k_rows() and v_rows() state.
///
/// Memory: one anonymous mapping (arena) per layer that holds K extents of heads 0..G-1, then V extents. Every row is
/// quantised once; all other calls move bytes. Beside the arenas 4 bytes per row hold positions (and 4 bytes per
/// slot and layer the order, once rows were evicted while decoding): index_bytes(), not part of KvUsage.
///
/// Threads: const methods may run together. append() may run at the same time for different layers, or for different
/// heads of one layer. Everything else needs the object alone. Movable; snapshot() is the one way to copy.
class RaggedKvCache {
  public:
    /// Allocates nothing but bookkeeping. Throws Error{invalid_argument} for sizes or a type that do not fit together.
    explicit RaggedKvCache(const KvCacheParams & params);

    RaggedKvCache(RaggedKvCache &&) noexcept = default;
    RaggedKvCache & operator=(RaggedKvCache &&) noexcept = default;
    RaggedKvCache(const RaggedKvCache &) = delete;
    RaggedKvCache & operator=(const RaggedKvCache &) = delete;
    ~RaggedKvCache() = default;

    /// Fills an empty layer from prefill: row t is that of token t, or of `positions`[t] where these are given
    /// (ascending, [n_tokens]). With `plan` only its positions are stored, never the others; its merged rows are means
    /// of the f16 rows given here, quantised once. Heads get the plan's row types where it has any. Throws
    /// Error{invalid_argument} (layer not empty, bad plan; nothing changed) or Error{runtime} (memory).
    void store_layer(int32_t il, const F16Rows & k, const F16Rows & v, int32_t n_tokens,
                     const LayerPlan * plan = nullptr, std::span<const int32_t> positions = {}, int32_t n_threads = 1);

    /// Keeps the rows at the plan's positions, drops the others and gives their memory back. Rows are moved bit for bit
    /// and stand in ascending positions afterwards. The plan holds one list for all heads or one per head; each is
    /// ascending, unique and a subset of the positions held. A row that others are merged into is the exception to "bit
    /// for bit": it becomes the mean of the rows as they were stored (dequantised, still rotated), quantised once more.
    /// So are the rows of a head that the plan gives another type: they are quantised, once, and must be f16 before.
    /// Throws Error{invalid_argument}; the layer is then unchanged.
    void compact(int32_t il, const LayerPlan & plan);
    /// All layers; every layer is checked before the first row moves.
    void compact(const Plan & plan);

    /// Makes room for n_more rows in every extent (amortised: all extents of a layer get fresh spare rows at once).
    /// Throws Error{runtime} when memory is out; rows held stay as they are. Pointers of views change.
    void reserve(int32_t n_more);

    /// From here on head g will not hold more than `most` rows: spare rows end there, rounded up to row_unit(), and
    /// what is spare beyond is given back. A promise that saves memory, no limit: reserve() goes beyond it.
    /// Holds until release(). `most`: [G]. Throws Error{invalid_argument} for a wrong number of them, or
    /// std::bad_alloc.
    void expect_rows(int32_t il, std::span<const int32_t> most);

    /// Adds n_tokens rows to the heads [g_begin, g_end) of a layer (-1 = G), at positions first_position + i, which lie
    /// behind all positions held. Rotates and quantises in place; allocates nothing, so it may run inside a ggml
    /// custom op. False, and nothing is stored, when reserve() did not make room or an argument is out of range.
    /// `k` and `v` are always those of head 0 (of token 0).
    [[nodiscard]] bool append(int32_t il, const F32Rows & k, const F32Rows & v, int32_t n_tokens,
                              int32_t first_position, int32_t g_begin = 0, int32_t g_end = -1) noexcept;

    /// Eviction while decoding: deletes `n` times the row at `logical_slot` (rank by position) in all heads of the
    /// layer. In memory the last physical row takes the place of each deleted one; nothing else moves. With a constant
    /// slot d, slots [0, d) are fixed and what lies behind is a ring whose oldest row leaves. Deleting n at once equals
    /// n single calls, also after appending several tokens at once. All heads must have the same number of rows.
    /// Throws Error{invalid_argument}; the layer is then unchanged.
    void evict(int32_t il, int32_t logical_slot, int32_t n = 1);

    /// Eviction of single rows of one head: deletes those at the physical `slots`, descending and unique; the last row
    /// takes the place of each. Not to be mixed with evict() on a layer. Throws Error{invalid_argument}; nothing is
    /// changed then.
    void remove(int32_t il, int32_t g, std::span<const int32_t> slots);

    /// Takes back every row at a position >= `position` in all layers (a refused or cancelled turn). Rows that evict()
    /// deleted since do not come back. Throws Error{invalid_argument} where, after evictions, heads of a layer would
    /// lose different numbers of rows (only possible for a position inside the compacted prompt).
    void truncate(int32_t position);

    /// Drops all rows and gives all memory back; the object can be filled again.
    void release() noexcept;

    /// Deep copy, for evaluating several plans on one prefill. Costs the bytes held.
    [[nodiscard]] RaggedKvCache snapshot() const;

    // Reading. Indices out of range are a programming error and throw Error{invalid_argument}.
    [[nodiscard]] int32_t n_rows(int32_t il, int32_t g) const;
    [[nodiscard]] KvRowsView k_rows(int32_t il, int32_t g) const;
    [[nodiscard]] KvRowsView v_rows(int32_t il, int32_t g) const;
    /// Original positions of the physical rows, [n_rows].
    [[nodiscard]] std::span<const int32_t> positions(int32_t il, int32_t g) const;
    /// Dequantised and rotated back, for tests and dumps: out_k and out_v are [slots.size(), d]; either may be empty.
    void read_rows_f32(int32_t il, int32_t g, std::span<const int32_t> slots, std::span<float> out_k,
                       std::span<float> out_v) const;

    [[nodiscard]] const KvCacheParams & params() const noexcept { return params_; }
    /// Bytes of one key row (and of one value row) of params().type; heads may differ.
    [[nodiscard]] size_t row_bytes() const noexcept { return format(params_.type).bytes; }
    /// Most rows of any extent.
    [[nodiscard]] int32_t max_rows() const noexcept;
    /// Bytes of all rows held, and of all arenas.
    [[nodiscard]] uint64_t bytes_held() const noexcept;
    [[nodiscard]] uint64_t bytes_reserved() const noexcept;
    /// Bytes of positions and order, beside the arenas.
    [[nodiscard]] uint64_t index_bytes() const noexcept;
    /// `n_processed`: tokens of the sequence so far, for bytes_full_f16.
    [[nodiscard]] KvUsage usage(int64_t n_processed) const;

  private:
    /// What depends on the type of a head's rows.
    struct Format {
        ggml_type type = GGML_TYPE_F16;
        size_t bytes = 0;                  // of a row; 0 where the head size does not fit
        int32_t k_block = 0, v_block = 0;  // for hadamard_rotate(), 0 = not rotated
    };
    /// K and V extent of one head; both have the same capacity. Offsets in bytes from the arena's start.
    struct Head {
        explicit Head(KvType of_rows) : type(of_rows) {}
        KvType type;
        size_t k_offset = 0;
        size_t v_offset = 0;
        int32_t capacity = 0;            // rows, a multiple of row_unit(); positions.capacity() is at least this
        int32_t expected = INT32_MAX;    // most rows, as expect_rows() was told
        int32_t next_position = 0;       // behind every position that was held
        std::vector<int32_t> positions;  // [n_rows], physical order
    };
    struct Layer {
        Arena arena;
        std::vector<Head> heads;     // [G]
        std::vector<int32_t> order;  // physical slot by logical slot; empty = the same. May lack the newest rows.
        bool shuffled = false;       // remove() left rows out of the order of positions; `order` is empty then
    };
    using Slots = std::vector<std::vector<int32_t>>;  // [G][n_kept], physical slots in ascending positions
    /// A row and those that become part of it, as physical slots.
    struct MergedSlots {
        int32_t into = 0;
        std::vector<int32_t> from;
    };

    Layer & layer_at(int32_t il, const char * call);
    [[nodiscard]] const Layer & layer_at(int32_t il, const char * call) const;
    [[nodiscard]] const Head & head_at(int32_t il, int32_t g, const char * call) const;
    [[nodiscard]] KvRowsView view(int32_t il, const Head & head, bool is_k) const noexcept;
    [[nodiscard]] const Format & format(KvType type) const noexcept { return formats_[static_cast<size_t>(type)]; }
    [[nodiscard]] const Format & format(const Head & head) const noexcept { return format(head.type); }
    void check_types(int32_t il, const LayerPlan & plan) const;

    // layout.cpp; `capacity(g)` is the new capacity of head g in rows.
    [[nodiscard]] int32_t capacity_for(const Head & head, int32_t rows) const noexcept;
    template <typename F>
    [[nodiscard]] size_t arena_bytes(const Layer & layer, F && capacity) const noexcept;
    template <typename F>
    void place_extents(Layer & layer, F && capacity) const noexcept;
    void make_room(Layer & layer, int32_t il, int32_t n_more) const;
    void make_room_for(Layer & layer, int32_t il, const std::vector<std::vector<int32_t>> & positions) const;
    void give_back(Layer & layer) const noexcept;
    void tighten(Layer & layer) const noexcept;

    // compact.cpp
    [[nodiscard]] Slots slots_of(int32_t il, const LayerPlan & plan) const;
    void keep_slots(Layer & layer, const Slots & slots, const std::vector<std::vector<MergedSlots>> & merged) const;
    void complete_order(Layer & layer) const;
    void drop_slot(Head & head, Layer & layer, size_t slot) const noexcept;
    void remove_logical(Layer & layer, int32_t logical_slot, int32_t n) const noexcept;

    // merge.cpp
    [[nodiscard]] std::vector<std::vector<MergedSlots>> merged_slots(int32_t il, const LayerPlan & plan) const;
    void merge_rows(Layer & layer, const std::vector<std::vector<MergedSlots>> & merged) const noexcept;

    // types.cpp
    void convert(Layer & layer, int32_t il, const std::vector<KvType> & types) const;

    void encode_row(const float * row, ggml_type type, int32_t block, uint8_t * out) const noexcept;

    KvCacheParams params_;
    Format formats_[3];          // by KvType
    std::vector<Layer> layers_;  // [L]
};

}  // namespace kvsieve
