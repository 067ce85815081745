// SPDX-License-Identifier: MIT
#include "graph/ragged_attention.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>

#include "kvsieve/error.h"

namespace kvsieve {
namespace {

/// Copies src to dst and rotates every block; rows are split over the threads.
void rotate_rows(ggml_tensor * dst, const ggml_tensor * src, int ith, int nth, void * userdata) {
    const auto block = static_cast<int32_t>(reinterpret_cast<intptr_t>(userdata));
    const int64_t d = src->ne[0];
    const int64_t n_rows = ggml_nrows(src);
    for (int64_t row = ith; row < n_rows; row += nth) {
        const auto * from = static_cast<const float *>(src->data) + row * d;
        auto * to = static_cast<float *>(dst->data) + row * d;
        std::memcpy(to, from, static_cast<size_t>(d) * sizeof(float));
        hadamard_rotate({to, static_cast<size_t>(d)}, block);
    }
}

ggml_tensor * rotate(const GraphBuilder & b, ggml_tensor * x, int32_t block) {
    if (block == 0) {
        return x;
    }
    return ggml_map_custom1(b.ctx, x, rotate_rows, GGML_N_TASKS_MAX, reinterpret_cast<void *>(intptr_t{block}));
}

}  // namespace

RaggedAttention::RaggedAttention(RaggedKvCache & cache, const DecoderConfig & config, int32_t n, int32_t first,
                                 const AttentionOptions & options)
    : cache_(cache), config_(config), n_(n), first_(first), newest_(options.newest) {
    if (n == 1 && options.kernel) {
        lane_.emplace(std::vector<Lane>{{&cache, first, options.newest}}, config);
        return;
    }
    cache_.reserve(n);
    if (newest_ != nullptr) {
        newest_->assign(static_cast<size_t>(config.n_layer), {});
    }
}

void RaggedAttention::append_rows(ggml_tensor * dst, int ith, int nth, void * userdata) {
    auto & append = *static_cast<Append *>(userdata);
    const ggml_tensor * k = dst->src[0];
    const ggml_tensor * v = dst->src[1];
    const auto rows = [](const ggml_tensor * t) {
        return F32Rows{static_cast<const float *>(t->data), t->nb[1] / sizeof(float), t->nb[2] / sizeof(float)};
    };
    const auto n_head = static_cast<int32_t>(k->ne[1]);
    const int32_t g0 = n_head * ith / nth;
    const int32_t g1 = n_head * (ith + 1) / nth;
    if (g0 < g1 &&
        !append.cache->append(append.il, rows(k), rows(v), static_cast<int32_t>(k->ne[2]), append.first, g0, g1)) {
        append.failed = true;
    }
}

ggml_tensor * RaggedAttention::mask(const GraphBuilder & b, int32_t n_kv) {
    if (n_ == 1) {
        return nullptr;
    }
    std::vector<ggml_fp16_t> & mask = masks_[n_kv];
    if (mask.empty()) {
        const ggml_fp16_t hidden = ggml_fp32_to_fp16(-std::numeric_limits<float>::infinity());
        mask.assign(static_cast<size_t>(n_) * static_cast<size_t>(n_kv), ggml_fp32_to_fp16(0.0F));
        for (int32_t i = 0; i < n_; ++i) {
            const auto row = mask.begin() + static_cast<int64_t>(i) * n_kv;
            std::fill(row + (n_kv - n_ + i + 1), row + n_kv, hidden);
        }
    }
    return b.external(GGML_TYPE_F16, n_kv, n_, 1, mask.data());
}

ggml_tensor * RaggedAttention::attend(const GraphBuilder & b, ggml_tensor * q, ggml_tensor * k, ggml_tensor * v,
                                      int32_t n_kv) {
    ggml_tensor * out = ggml_flash_attn_ext(b.ctx, ggml_permute(b.ctx, q, 0, 2, 1, 3), k, v, mask(b, n_kv),
                                            config_.kq_scale, 0.0F, 0.0F);
    ggml_prec_set_acc(out, GGML_PREC_F32);
    return out;  // [head_dim, heads, n]
}

/// Adds nodes that append the last token's rows of `heads` query heads to the layer's: q [head_dim, heads, n],
/// k [head_dim, n_kv, heads / R].
void RaggedAttention::observe(const GraphBuilder & b, int32_t il, ggml_tensor * q, ggml_tensor * k) {
    if (newest_ == nullptr) {
        return;
    }
    std::vector<float> & rows = (*newest_)[static_cast<size_t>(il)];
    const size_t filled = rows.size();
    rows.resize(filled + static_cast<size_t>(q->ne[1] * k->ne[1]));  // inside what build() reserved
    ggml_tensor * last =
        ggml_view_3d(b.ctx, q, q->ne[0], q->ne[1], 1, q->nb[1], q->nb[2], static_cast<size_t>(n_ - 1) * q->nb[2]);
    ggml_tensor * scores = ggml_mul_mat(b.ctx, k, ggml_permute(b.ctx, last, 0, 2, 1, 3));  // [n_kv, 1, heads]
    ggml_prec_set_acc(scores, GGML_PREC_F32);
    ggml_tensor * attention = ggml_soft_max_ext_inplace(b.ctx, scores, nullptr, config_.kq_scale, 0.0F);
    b.expand(ggml_cpy(b.ctx, attention, b.external(GGML_TYPE_F32, k->ne[1], 1, q->ne[1], rows.data() + filled)));
}

ggml_tensor * RaggedAttention::build(const GraphBuilder & b, int32_t il, const Qkv & qkv) {
    if (lane_) {
        return lane_->build(b, il, qkv);
    }
    // only several tokens need masks, and their graphs hold one layer each: the last one's are done with
    masks_.clear();
    appends_.push_back(std::make_unique<Append>());
    appends_.back()->cache = &cache_;
    appends_.back()->il = il;
    appends_.back()->first = first_;
    ggml_tensor * args[] = {qkv.k, qkv.v};
    ggml_tensor * appended =
        ggml_custom_4d(b.ctx, GGML_TYPE_F32, 1, 1, 1, 1, args, 2, append_rows, GGML_N_TASKS_MAX, appends_.back().get());
    b.expand(appended);

    const int32_t n_head_kv = config_.n_head_kv;
    const int32_t group = config_.n_head / n_head_kv;
    const int64_t d = config_.head_dim;
    const auto view = [&](const KvRowsView & rows, int32_t n_kv, int64_t heads, size_t head_stride) {
        return b.external(ggml_type_of(rows.type), d, n_kv, heads, rows.row_bytes, head_stride,
                          const_cast<uint8_t *>(rows.data));
    };
    // heads of one length at one distance are one op
    const KvRowsView k0 = cache_.k_rows(il, 0);
    const KvRowsView v0 = cache_.v_rows(il, 0);
    const size_t k_stride = n_head_kv > 1 ? static_cast<size_t>(cache_.k_rows(il, 1).data - k0.data) : k0.row_bytes;
    const size_t v_stride = n_head_kv > 1 ? static_cast<size_t>(cache_.v_rows(il, 1).data - v0.data) : v0.row_bytes;
    bool uniform = true, one_type = true;
    for (int32_t g = 1; g < n_head_kv; ++g) {
        const auto i = static_cast<size_t>(g);
        one_type = one_type && cache_.k_rows(il, g).type == k0.type;
        uniform = uniform && one_type && cache_.n_rows(il, g) == k0.n_rows &&
                  cache_.k_rows(il, g).data == k0.data + i * k_stride &&
                  cache_.v_rows(il, g).data == v0.data + i * v_stride;
    }
    if (newest_ != nullptr) {
        size_t n_rows = 0;
        for (int32_t g = 0; g < n_head_kv; ++g) {
            n_rows += static_cast<size_t>(group) * static_cast<size_t>(cache_.n_rows(il, g) + n_);
        }
        (*newest_)[static_cast<size_t>(il)].reserve(n_rows);
    }
    ggml_tensor * q = one_type ? rotate(b, qkv.q, k0.rotation) : qkv.q;
    ggml_tensor * out = nullptr;
    if (uniform) {
        const int32_t n_kv = k0.n_rows + n_;
        ggml_tensor * k = view(k0, n_kv, n_head_kv, k_stride);
        observe(b, il, q, k);
        out = attend(b, q, k, view(v0, n_kv, n_head_kv, v_stride), n_kv);
    } else {
        for (int32_t g = 0; g < n_head_kv; ++g) {
            const KvRowsView k = cache_.k_rows(il, g);
            const KvRowsView v = cache_.v_rows(il, g);
            const int32_t n_kv = k.n_rows + n_;
            const size_t extent = k.row_bytes * static_cast<size_t>(n_kv);
            ggml_tensor * heads = ggml_view_3d(b.ctx, q, d, group, n_, q->nb[1], q->nb[2],
                                               static_cast<size_t>(g) * static_cast<size_t>(group) * q->nb[1]);
            if (!one_type && k.rotation > 0) {
                heads = rotate(b, ggml_cont(b.ctx, heads), k.rotation);
            }
            ggml_tensor * keys = view(k, n_kv, 1, extent);
            observe(b, il, heads, keys);
            ggml_tensor * part = attend(b, heads, keys, view(v, n_kv, 1, extent), n_kv);
            part = one_type ? part : rotate(b, part, v.rotation);
            out = out == nullptr ? part : ggml_concat(b.ctx, out, part, 1);
        }
    }
    out = one_type ? rotate(b, out, v0.rotation) : out;
    return ggml_reshape_2d(b.ctx, out, d * config_.n_head, n_);
}

void RaggedAttention::check() const {
    if (lane_) {
        lane_->check();
    }
    for (const auto & append : appends_) {
        if (append->failed) {
            throw Error(ErrorCode::runtime,
                        "the cache of layer " + std::to_string(append->il) + " had no room for a new row");
        }
    }
}

}  // namespace kvsieve
