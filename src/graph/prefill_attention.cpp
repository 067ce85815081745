// SPDX-License-Identifier: MIT
#include "graph/prefill_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace kvsieve {

LayerKv::LayerKv(const DecoderConfig & config, int32_t n_tokens)
    : n_tokens_(n_tokens), head_dim_(config.head_dim), n_head_kv_(config.n_head_kv) {
    arena_.grow(bytes_of(config, n_tokens), "one layer's keys and values during prefill");
}

uint64_t LayerKv::bytes_of(const DecoderConfig & config, int32_t n_tokens) {
    return Arena::page_round(4 * static_cast<size_t>(padded(n_tokens)) * static_cast<size_t>(config.head_dim) *
                             static_cast<size_t>(config.n_head_kv));
}

void LayerKv::shrink(int32_t n_tokens) {
    n_tokens_ = n_tokens;
    arena_.shrink(4 * head_stride() * static_cast<size_t>(n_head_kv_));
}

size_t LayerKv::head_stride() const {
    return static_cast<size_t>(padded(n_tokens_)) * static_cast<size_t>(head_dim_);
}

const ggml_fp16_t * LayerKv::keys() const {
    return reinterpret_cast<const ggml_fp16_t *>(arena_.data());
}

const ggml_fp16_t * LayerKv::values() const {
    return keys() + head_stride() * static_cast<size_t>(n_head_kv_);
}

ggml_tensor * LayerKv::view(const GraphBuilder & b, const ggml_fp16_t * rows, int32_t first, int32_t n_rows) const {
    const size_t row_bytes = static_cast<size_t>(head_dim_) * sizeof(ggml_fp16_t);
    // ggml tensors have no const data; only store() writes through such a view
    auto * data = const_cast<ggml_fp16_t *>(rows) + static_cast<size_t>(first) * static_cast<size_t>(head_dim_);
    return b.external(GGML_TYPE_F16, head_dim_, n_rows, n_head_kv_, row_bytes, head_stride() * sizeof(ggml_fp16_t),
                      data);
}

void LayerKv::store(const GraphBuilder & b, int32_t first, ggml_tensor * k, ggml_tensor * v) {
    const auto n = static_cast<int32_t>(k->ne[2]);
    b.expand(ggml_cpy(b.ctx, ggml_permute(b.ctx, k, 0, 2, 1, 3), view(b, keys(), first, n)));
    b.expand(ggml_cpy(b.ctx, ggml_permute(b.ctx, v, 0, 2, 1, 3), view(b, values(), first, n)));
}

ggml_tensor * LayerKv::key_view(const GraphBuilder & b, int32_t n_rows) const {
    return view(b, keys(), 0, n_rows);
}

ggml_tensor * LayerKv::value_view(const GraphBuilder & b, int32_t n_rows) const {
    return view(b, values(), 0, n_rows);
}

void ColumnSums::reset(int32_t heads, int32_t tokens) {
    n_head = heads;
    n_tokens = tokens;
    sums.assign(static_cast<size_t>(heads) * static_cast<size_t>(tokens), 0.0F);
}

namespace {

/// Adds the columns of attention [>= n_kv, n, n_head] to the sums; one head is one thread's work, queries ascend.
void add_columns(ggml_tensor * dst, const ggml_tensor * attention, int ith, int nth, void * userdata) {
    (void)dst;
    auto & sums = *static_cast<ColumnSums *>(userdata);
    const auto n_kv = std::min<int64_t>(attention->ne[0], sums.n_tokens);
    for (int64_t h = ith; h < attention->ne[2]; h += nth) {
        float * out = sums.sums.data() + h * sums.n_tokens;
        for (int64_t q = 0; q < attention->ne[1]; ++q) {
            const char * base = static_cast<const char *>(attention->data);
            const auto * row = reinterpret_cast<const float *>(base + static_cast<size_t>(h) * attention->nb[2] +
                                                               static_cast<size_t>(q) * attention->nb[1]);
            for (int64_t k = 0; k < n_kv; ++k) {
                out[k] += row[k];
            }
        }
    }
}

/// Queries that attend together: their scores stay small, and the keys behind a block are never multiplied.
int32_t block_queries(const DecoderConfig & config, int32_t n_kv) {
    constexpr int64_t kScores = int64_t{1} << 21;
    return static_cast<int32_t>(std::clamp<int64_t>(kScores / (int64_t{config.n_head} * n_kv), 16, 64));
}

}  // namespace

size_t attention_nodes(const DecoderConfig & config, int32_t first, int32_t n) {
    constexpr size_t kOfABlock = 12;
    return kOfABlock * static_cast<size_t>(1 + n / block_queries(config, first + n));
}

void prefill_attention(const GraphBuilder & b, const DecoderConfig & config, const LayerKv & kv, int32_t first,
                       ggml_tensor * q, ColumnSums * sums, float * heads) {
    const auto n_all = static_cast<int32_t>(q->ne[2]);
    ggml_tensor * values = ggml_cont(
        b.ctx, ggml_transpose(b.ctx, kv.value_view(b, LayerKv::padded(first + n_all))));  // [n_kv, head_dim, n_head_kv]
    const int32_t block = block_queries(config, first + n_all);
    for (int32_t at = 0; at < n_all; at += block) {
        const int32_t n = std::min(block, n_all - at);
        const int32_t n_kv = LayerKv::padded(first + at + n);  // the causal mask covers the rest
        ggml_tensor * queries =
            ggml_view_3d(b.ctx, q, q->ne[0], q->ne[1], n, q->nb[1], q->nb[2], static_cast<size_t>(at) * q->nb[2]);
        ggml_tensor * scores = ggml_mul_mat(b.ctx, kv.key_view(b, n_kv), ggml_permute(b.ctx, queries, 0, 2, 1, 3));
        ggml_prec_set_acc(scores, GGML_PREC_F32);
        scores = ggml_diag_mask_inf_inplace(b.ctx, scores, first + at);
        ggml_tensor * attention = ggml_soft_max_ext_inplace(b.ctx, scores, nullptr, config.kq_scale, 0.0F);
        if (sums != nullptr) {
            attention = ggml_map_custom1_inplace(b.ctx, attention, add_columns, GGML_N_TASKS_MAX, sums);
        }
        ggml_tensor * seen =
            ggml_view_3d(b.ctx, values, n_kv, values->ne[1], values->ne[2], values->nb[1], values->nb[2], 0);
        ggml_tensor * out = ggml_mul_mat(b.ctx, seen, attention);  // [head_dim, n, n_head]
        float * to =
            heads + static_cast<size_t>(at) * static_cast<size_t>(config.n_head) * static_cast<size_t>(config.head_dim);
        b.expand(ggml_cpy(b.ctx, ggml_permute(b.ctx, out, 0, 2, 1, 3),
                          b.external(GGML_TYPE_F32, config.head_dim, config.n_head, n, to)));
    }
}

void attention_rows(GraphRunner & runner, const DecoderConfig & config, const LayerKv & kv,
                    std::span<const int32_t> positions, std::span<const float> queries, std::vector<float> & out) {
    const auto n = static_cast<int64_t>(positions.size());
    const int32_t n_kv = kv.n_tokens();
    out.resize(static_cast<size_t>(n) * static_cast<size_t>(config.n_head) * static_cast<size_t>(n_kv));
    std::vector<float> mask(static_cast<size_t>(n) * static_cast<size_t>(n_kv));
    for (size_t i = 0; i < positions.size(); ++i) {
        float * row = mask.data() + i * static_cast<size_t>(n_kv);
        std::fill(row + positions[i] + 1, row + n_kv, -std::numeric_limits<float>::infinity());
    }
    runner.run(32, [&](GraphBuilder & b) {
        ggml_tensor * q =
            b.external(GGML_TYPE_F32, config.head_dim, config.n_head, n, const_cast<float *>(queries.data()));
        ggml_tensor * m = b.external(GGML_TYPE_F32, n_kv, n, 1, mask.data());
        ggml_tensor * scores = ggml_mul_mat(b.ctx, kv.key_view(b, n_kv), ggml_permute(b.ctx, q, 0, 2, 1, 3));
        ggml_prec_set_acc(scores, GGML_PREC_F32);
        ggml_tensor * attention = ggml_soft_max_ext_inplace(b.ctx, scores, m, config.kq_scale, 0.0F);
        b.expand(ggml_cpy(b.ctx, attention, b.external(GGML_TYPE_F32, n_kv, n, config.n_head, out.data())));
    });
}

}  // namespace kvsieve
