// SPDX-License-Identifier: MIT
#include "cache/ragged_kv_cache.h"

#include <ggml-cpu.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <numeric>
#include <string>
#include <utility>

#include "cache/check_plan.h"
#include "kvsieve/error.h"

namespace kvsieve {

ggml_type ggml_type_of(KvType type) {
    switch (type) {
        case KvType::f16:
            return GGML_TYPE_F16;
        case KvType::q8_0:
            return GGML_TYPE_Q8_0;
        case KvType::q4_0:
            return GGML_TYPE_Q4_0;
    }
    throw Error(ErrorCode::invalid_argument, "KV cache: type number " + std::to_string(static_cast<int>(type)) +
                                                 " does not exist; expected f16, q8_0 or q4_0");
}

namespace {

void check(const KvCacheParams & params) {
    const auto positive = [](const char * name, int32_t value, int32_t limit) {
        if (value < 1 || value > limit) {
            throw Error(ErrorCode::invalid_argument, std::string("KV cache: ") + name + " is " + std::to_string(value) +
                                                         ", expected 1 to " + std::to_string(limit));
        }
    };
    positive("n_layer", params.n_layer, 1 << 16);
    positive("n_head_kv", params.n_head_kv, 1 << 12);
    positive("head_dim", params.head_dim, kMaxHeadDim);
    const int64_t block = ggml_blck_size(ggml_type_of(params.type));
    if (params.head_dim % block != 0) {
        throw Error(ErrorCode::invalid_argument, "KV cache: type " + std::string(kv_type_name(params.type)) +
                                                     " needs a head size that is a multiple of " +
                                                     std::to_string(block) + ", this model has " +
                                                     std::to_string(params.head_dim));
    }
}

/// Calls f and turns a failed allocation of bookkeeping into the library's error.
template <typename F>
decltype(auto) with_memory(F && f) {
    try {
        return f();
    } catch (const std::bad_alloc &) {
        throw Error(ErrorCode::runtime, "out of memory: the row index of the KV cache");
    }
}

}  // namespace

RaggedKvCache::RaggedKvCache(const KvCacheParams & params) : params_(params) {
    check(params);
    ggml_cpu_init();  // conversion tables
    for (const KvType type : {KvType::f16, KvType::q8_0, KvType::q4_0}) {
        Format & one = formats_[static_cast<size_t>(type)];
        one.type = ggml_type_of(type);
        if (params.head_dim % ggml_blck_size(one.type) != 0) {
            continue;
        }
        one.bytes = ggml_row_size(one.type, params.head_dim);
        if (params.rotate && ggml_is_quantized(one.type)) {
            one.k_block = key_rotation_block(params.head_dim);
            one.v_block = value_rotation_block(params.head_dim);
        }
    }
    with_memory([&] {
        layers_.resize(static_cast<size_t>(params.n_layer));
        for (Layer & layer : layers_) {
            layer.heads.assign(static_cast<size_t>(params.n_head_kv), Head(params.type));
        }
    });
}

const RaggedKvCache::Layer & RaggedKvCache::layer_at(int32_t il, const char * call) const {
    if (il < 0 || static_cast<size_t>(il) >= layers_.size()) {
        throw Error(ErrorCode::invalid_argument, std::string("KV cache: ") + call + ": layer " + std::to_string(il) +
                                                     " is out of range, the cache has " +
                                                     std::to_string(layers_.size()) + " layers");
    }
    return layers_[static_cast<size_t>(il)];
}

RaggedKvCache::Layer & RaggedKvCache::layer_at(int32_t il, const char * call) {
    static_cast<void>(std::as_const(*this).layer_at(il, call));
    return layers_[static_cast<size_t>(il)];
}

const RaggedKvCache::Head & RaggedKvCache::head_at(int32_t il, int32_t g, const char * call) const {
    const Layer & layer = layer_at(il, call);
    if (g < 0 || static_cast<size_t>(g) >= layer.heads.size()) {
        throw Error(ErrorCode::invalid_argument, std::string("KV cache: ") + call + ": KV head " + std::to_string(g) +
                                                     " is out of range, the cache has " +
                                                     std::to_string(layer.heads.size()) + " KV heads");
    }
    return layer.heads[static_cast<size_t>(g)];
}

void RaggedKvCache::reserve(int32_t n_more) {
    if (n_more < 0) {
        throw Error(ErrorCode::invalid_argument,
                    "KV cache: reserve " + std::to_string(n_more) + " rows, expected 0 or more");
    }
    with_memory([&] {
        for (size_t il = 0; il < layers_.size(); ++il) {
            make_room(layers_[il], static_cast<int32_t>(il), n_more);
        }
    });
}

bool RaggedKvCache::append(int32_t il, const F32Rows & k, const F32Rows & v, int32_t n_tokens, int32_t first_position,
                           int32_t g_begin, int32_t g_end) noexcept {
    g_end = g_end < 0 ? params_.n_head_kv : g_end;
    if (il < 0 || static_cast<size_t>(il) >= layers_.size() || n_tokens < 0 ||
        (n_tokens > 0 && (k.data == nullptr || v.data == nullptr)) || g_begin < 0 || g_begin > g_end ||
        g_end > params_.n_head_kv || first_position < 0 || first_position > INT32_MAX - n_tokens) {
        return false;
    }
    Layer & layer = layers_[static_cast<size_t>(il)];
    for (int32_t g = g_begin; g < g_end; ++g) {
        const Head & head = layer.heads[static_cast<size_t>(g)];
        if (head.capacity - static_cast<int32_t>(head.positions.size()) < n_tokens ||
            first_position < head.next_position) {
            return false;
        }
    }
    const auto d = static_cast<size_t>(params_.head_dim);
    for (int32_t g = g_begin; g < g_end; ++g) {
        Head & head = layer.heads[static_cast<size_t>(g)];
        const Format & row_format = format(head);
        for (const bool is_k : {true, false}) {
            const F32Rows & rows = is_k ? k : v;
            const size_t head_stride = rows.head_stride != 0 ? rows.head_stride : d;
            const size_t token_stride = rows.token_stride != 0 ? rows.token_stride : layer.heads.size() * d;
            const float * row = rows.data + static_cast<size_t>(g) * head_stride;
            uint8_t * out =
                layer.arena.data() + (is_k ? head.k_offset : head.v_offset) + head.positions.size() * row_format.bytes;
            for (int32_t i = 0; i < n_tokens; ++i, row += token_stride, out += row_format.bytes) {
                encode_row(row, row_format.type, is_k ? row_format.k_block : row_format.v_block, out);
            }
        }
        for (int32_t i = 0; i < n_tokens; ++i) {
            head.positions.push_back(first_position + i);
        }
        head.next_position = first_position + n_tokens;
    }
    return true;
}

void RaggedKvCache::release() noexcept {
    for (Layer & layer : layers_) {
        layer.arena.shrink(0);
        layer.order = std::vector<int32_t>();
        layer.shuffled = false;
        for (Head & head : layer.heads) {
            head = Head(params_.type);
        }
    }
}

RaggedKvCache RaggedKvCache::snapshot() const {
    RaggedKvCache copy(params_);
    with_memory([&] {
        copy.layers_.resize(layers_.size());
        for (size_t il = 0; il < layers_.size(); ++il) {
            const Layer & from = layers_[il];
            Layer & to = copy.layers_[il];
            to.arena.grow(from.arena.size(), "KV cache, copy of layer " + std::to_string(il));
            to.order = from.order;
            to.shuffled = from.shuffled;
            for (size_t g = 0; g < from.heads.size(); ++g) {
                const Head & head = from.heads[g];
                to.heads[g] = head;
                to.heads[g].positions.reserve(static_cast<size_t>(head.capacity));
                if (head.positions.empty()) {
                    continue;
                }
                for (const size_t offset : {head.k_offset, head.v_offset}) {
                    std::memcpy(to.arena.data() + offset, from.arena.data() + offset,
                                head.positions.size() * format(head).bytes);
                }
            }
        }
    });
    return copy;
}

int32_t RaggedKvCache::n_rows(int32_t il, int32_t g) const {
    return static_cast<int32_t>(head_at(il, g, "n_rows").positions.size());
}

KvRowsView RaggedKvCache::view(int32_t il, const Head & head, bool is_k) const noexcept {
    const uint8_t * const arena = layers_[static_cast<size_t>(il)].arena.data();
    const Format & row_format = format(head);
    return {.data = arena == nullptr ? nullptr : arena + (is_k ? head.k_offset : head.v_offset),
            .n_rows = static_cast<int32_t>(head.positions.size()),
            .row_bytes = row_format.bytes,
            .type = head.type,
            .rotation = is_k ? row_format.k_block : row_format.v_block};
}

KvRowsView RaggedKvCache::k_rows(int32_t il, int32_t g) const {
    return view(il, head_at(il, g, "k_rows"), true);
}

KvRowsView RaggedKvCache::v_rows(int32_t il, int32_t g) const {
    return view(il, head_at(il, g, "v_rows"), false);
}

std::span<const int32_t> RaggedKvCache::positions(int32_t il, int32_t g) const {
    return head_at(il, g, "positions").positions;
}

void RaggedKvCache::read_rows_f32(int32_t il, int32_t g, std::span<const int32_t> slots, std::span<float> out_k,
                                  std::span<float> out_v) const {
    const int32_t rows = n_rows(il, g);
    const auto d = static_cast<size_t>(params_.head_dim);
    for (const int32_t slot : slots) {
        if (slot < 0 || slot >= rows) {
            throw Error(ErrorCode::invalid_argument, "KV cache: read_rows_f32: slot " + std::to_string(slot) +
                                                         " is out of range, layer " + std::to_string(il) +
                                                         ", KV head " + std::to_string(g) + " has " +
                                                         std::to_string(rows) + " rows");
        }
    }
    for (const bool is_k : {true, false}) {
        const std::span<float> out = is_k ? out_k : out_v;
        if (out.empty()) {
            continue;
        }
        if (out.size() != slots.size() * d) {
            throw Error(ErrorCode::invalid_argument, "KV cache: read_rows_f32: room for " + std::to_string(out.size()) +
                                                         " elements, expected " + std::to_string(slots.size() * d));
        }
        const KvRowsView from = is_k ? k_rows(il, g) : v_rows(il, g);
        for (size_t i = 0; i < slots.size(); ++i) {
            const uint8_t * row = from.data + static_cast<size_t>(slots[i]) * from.row_bytes;
            const std::span<float> to = out.subspan(i * d, d);
            ggml_get_type_traits(format(from.type).type)->to_float(row, to.data(), params_.head_dim);
            hadamard_rotate(to, from.rotation);
        }
    }
}

int32_t RaggedKvCache::max_rows() const noexcept {
    size_t most = 0;
    for (const Layer & layer : layers_) {
        for (const Head & head : layer.heads) {
            most = std::max(most, head.positions.size());
        }
    }
    return static_cast<int32_t>(most);
}

uint64_t RaggedKvCache::bytes_held() const noexcept {
    uint64_t bytes = 0;
    for (const Layer & layer : layers_) {
        for (const Head & head : layer.heads) {
            bytes += head.positions.size() * 2 * format(head).bytes;
        }
    }
    return bytes;
}

uint64_t RaggedKvCache::bytes_reserved() const noexcept {
    uint64_t bytes = 0;
    for (const Layer & layer : layers_) {
        bytes += layer.arena.size();
    }
    return bytes;
}

uint64_t RaggedKvCache::index_bytes() const noexcept {
    uint64_t entries = 0;
    for (const Layer & layer : layers_) {
        entries += layer.order.capacity();
        for (const Head & head : layer.heads) {
            entries += head.positions.capacity();
        }
    }
    return entries * sizeof(int32_t);
}

KvUsage RaggedKvCache::usage(int64_t n_processed) const {
    KvUsage usage;
    usage.bytes_held = bytes_held();
    usage.bytes_reserved = bytes_reserved();
    usage.bytes_full_f16 = static_cast<uint64_t>(std::max<int64_t>(n_processed, 0)) * layers_.size() *
                           static_cast<uint64_t>(params_.n_head_kv) * static_cast<uint64_t>(params_.head_dim) * 4;
    usage.rows_of.resize(layers_.size());
    usage.type_of.resize(layers_.size());
    for (size_t il = 0; il < layers_.size(); ++il) {
        for (const Head & head : layers_[il].heads) {
            usage.rows += head.positions.size();
            usage.rows_of[il].push_back(static_cast<int32_t>(head.positions.size()));
            usage.type_of[il].push_back(head.type);
        }
    }
    return usage;
}

}  // namespace kvsieve
