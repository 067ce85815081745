// SPDX-License-Identifier: MIT
#include "graph/prefill_attention.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <string>

#include "kvsieve/error.h"

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

void BlockWork::reserve(int32_t n_threads, int32_t head_dim, int32_t n_rows) {
    constexpr size_t kAlign = HWY_ALIGNMENT / sizeof(float);
    stride_ = (query_block_floats(head_dim, n_rows) + kAlign - 1) / kAlign * kAlign;
    const size_t size = stride_ * static_cast<size_t>(n_threads);
    if (size > size_) {
        floats_.reset();
        size_ = 0;
        floats_ = hwy::AllocateAligned<float>(size);
        if (floats_ == nullptr) {
            throw Error(ErrorCode::runtime, "no memory for the attention of a block of queries (" +
                                                std::to_string(size * sizeof(float)) + " bytes)");
        }
        size_ = size;
    }
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

size_t PrefillAttention::nodes(int32_t first, int32_t n) const {
    constexpr size_t kOfABlock = 12;
    return use_kernel_ ? 2 : kOfABlock * static_cast<size_t>(1 + n / block_queries(config_, first + n));
}

void PrefillAttention::build(const GraphBuilder & b, const LayerKv & kv, int32_t first, ggml_tensor * q,
                             ColumnSums * sums, float * heads) {
    if (use_kernel_) {
        build_with_kernel(b, kv, first, q, sums, heads);
    } else {
        build_with_ggml(b, kv, first, q, sums, heads);
    }
}

void PrefillAttention::build_with_kernel(const GraphBuilder & b, const LayerKv & kv, int32_t first, ggml_tensor * q,
                                         ColumnSums * sums, float * heads) {
    kv_ = &kv;
    first_ = first;
    n_ = static_cast<int32_t>(q->ne[2]);
    sums_ = sums;
    heads_ = heads;
    next_ = 0;
    work_.reserve(n_threads_, config_.head_dim, first + n_);
    const int64_t n_sums = sums == nullptr ? 1 : first + n_;
    ggml_tensor * node = ggml_custom_4d(b.ctx, GGML_TYPE_F32, n_sums, sums == nullptr ? 1 : n_block(),
                                        sums == nullptr ? 1 : config_.n_head, 1, &q, 1, attend, GGML_N_TASKS_MAX, this);
    b.expand(sums == nullptr ? node : ggml_map_custom1_inplace(b.ctx, node, add_up, GGML_N_TASKS_MAX, this));
}

/// dst [n_kv, n_block, n_head] receives each block's column sums, if they are captured. A thread that has nothing to do
/// takes the next block of a head, the longest first.
void PrefillAttention::attend(ggml_tensor * dst, int ith, int, void * userdata) {
    auto & self = *static_cast<PrefillAttention *>(userdata);
    const ggml_tensor * q = dst->src[0];
    const DecoderConfig & c = self.config_;
    const auto d = static_cast<size_t>(c.head_dim);
    for (int32_t i = 0; (i = self.next_.fetch_add(1, std::memory_order_relaxed)) < self.n_block() * c.n_head;) {
        const int32_t block = self.n_block() - 1 - i / c.n_head, at = block * kQueryBlock;
        const auto h = static_cast<size_t>(i % c.n_head);
        const size_t head_kv = h / static_cast<size_t>(c.n_head / c.n_head_kv) * self.kv_->head_stride();
        const auto * queries = static_cast<const char *>(q->data) + h * q->nb[1] + static_cast<size_t>(at) * q->nb[2];
        const int32_t n_query = std::min(kQueryBlock, self.n_ - at), n_rows = self.first_ + at + n_query;
        float * sums = nullptr;
        if (self.sums_ != nullptr) {
            sums = reinterpret_cast<float *>(static_cast<char *>(dst->data) + static_cast<size_t>(block) * dst->nb[1] +
                                             h * dst->nb[2]);
            std::fill_n(sums, n_rows, 0.0F);
        }
        attend_block({.head_dim = c.head_dim,
                      .n_rows = n_rows,
                      .first = self.first_ + at,
                      .n_query = n_query,
                      .k = self.kv_->keys() + head_kv,
                      .v = self.kv_->values() + head_kv,
                      .q = reinterpret_cast<const float *>(queries),
                      .q_stride = q->nb[2] / sizeof(float),
                      .scale = c.kq_scale,
                      .out = self.heads_ + (static_cast<size_t>(at) * static_cast<size_t>(c.n_head) + h) * d,
                      .out_stride = static_cast<size_t>(c.n_head) * d,
                      .sums = sums},
                     self.work_.of(ith));
    }
}

/// Adds the column sums of all blocks up; one head is one thread's work.
void PrefillAttention::add_up(ggml_tensor * dst, const ggml_tensor * sums, int ith, int nth, void * userdata) {
    (void)dst;
    auto & self = *static_cast<PrefillAttention *>(userdata);
    for (int64_t h = ith; h < sums->ne[2]; h += nth) {
        float * out = self.sums_->sums.data() + h * self.sums_->n_tokens;
        for (int32_t block = 0; block < self.n_block(); ++block) {
            const auto * row = reinterpret_cast<const float *>(static_cast<const char *>(sums->data) +
                                                               static_cast<size_t>(block) * sums->nb[1] +
                                                               static_cast<size_t>(h) * sums->nb[2]);
            const int32_t n_kv = self.first_ + std::min(self.n_, (block + 1) * kQueryBlock);
            std::transform(row, row + n_kv, out, out, std::plus<>());
        }
    }
}

void PrefillAttention::build_with_ggml(const GraphBuilder & b, const LayerKv & kv, int32_t first, ggml_tensor * q,
                                       ColumnSums * sums, float * heads) const {
    const auto n_all = static_cast<int32_t>(q->ne[2]);
    ggml_tensor * values = ggml_cont(
        b.ctx, ggml_transpose(b.ctx, kv.value_view(b, LayerKv::padded(first + n_all))));  // [n_kv, head_dim, n_head_kv]
    const int32_t block = block_queries(config_, first + n_all);
    for (int32_t at = 0; at < n_all; at += block) {
        const int32_t n = std::min(block, n_all - at);
        const int32_t n_kv = LayerKv::padded(first + at + n);  // the causal mask covers the rest
        ggml_tensor * queries =
            ggml_view_3d(b.ctx, q, q->ne[0], q->ne[1], n, q->nb[1], q->nb[2], static_cast<size_t>(at) * q->nb[2]);
        ggml_tensor * scores = ggml_mul_mat(b.ctx, kv.key_view(b, n_kv), ggml_permute(b.ctx, queries, 0, 2, 1, 3));
        ggml_prec_set_acc(scores, GGML_PREC_F32);
        scores = ggml_diag_mask_inf_inplace(b.ctx, scores, first + at);
        ggml_tensor * attention = ggml_soft_max_ext_inplace(b.ctx, scores, nullptr, config_.kq_scale, 0.0F);
        if (sums != nullptr) {
            attention = ggml_map_custom1_inplace(b.ctx, attention, add_columns, GGML_N_TASKS_MAX, sums);
        }
        ggml_tensor * seen =
            ggml_view_3d(b.ctx, values, n_kv, values->ne[1], values->ne[2], values->nb[1], values->nb[2], 0);
        ggml_tensor * out = ggml_mul_mat(b.ctx, seen, attention);  // [head_dim, n, n_head]
        float * to = heads + static_cast<size_t>(at) * static_cast<size_t>(config_.n_head) *
                                 static_cast<size_t>(config_.head_dim);
        b.expand(ggml_cpy(b.ctx, ggml_permute(b.ctx, out, 0, 2, 1, 3),
                          b.external(GGML_TYPE_F32, config_.head_dim, config_.n_head, n, to)));
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
