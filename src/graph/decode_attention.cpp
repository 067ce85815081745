// SPDX-License-Identifier: MIT
#include "graph/decode_attention.h"

#include <algorithm>

#include "graph/attention_kernel.h"

namespace kvsieve {

DecodeAttention::DecodeAttention(const RaggedKvCache & cache, const DecoderConfig & config, int32_t il)
    : cache_(cache), config_(config), il_(il) {
    for (int32_t g = 0; g < config.n_head_kv; ++g) {
        first_range_.push_back(static_cast<int32_t>(ranges_.size()));
        const int32_t n_rows = cache.n_rows(il, g) + 1;
        for (int32_t first = 0; first < n_rows; first += kRangeSlots) {
            ranges_.push_back({g, first, std::min(kRangeSlots, n_rows - first)});
        }
        n_rows_ += n_rows;
    }
    first_range_.push_back(static_cast<int32_t>(ranges_.size()));
}

/// dst [partial_floats, group, ranges]; a thread takes the ranges that begin in its share of all rows.
void DecodeAttention::attend(ggml_tensor * dst, int ith, int nth, void * userdata) {
    const auto & self = *static_cast<const DecodeAttention *>(userdata);
    const ggml_tensor * q = dst->src[0];
    const int32_t group = self.config_.n_head / self.config_.n_head_kv;
    const int64_t from = self.n_rows_ * ith / nth;
    const int64_t to = self.n_rows_ * (ith + 1) / nth;
    int64_t row = 0;
    for (size_t i = 0; i < self.ranges_.size(); row += self.ranges_[i++].n_rows) {
        if (row < from || row >= to) {
            continue;
        }
        const Range & r = self.ranges_[i];
        const KvRowsView k = self.cache_.k_rows(self.il_, r.head_kv);
        const KvRowsView v = self.cache_.v_rows(self.il_, r.head_kv);
        const size_t offset = static_cast<size_t>(r.first_row) * k.row_bytes;
        const AttendRange range{
            .type = self.cache_.params().type,
            .head_dim = self.config_.head_dim,
            .n_rows = r.n_rows,
            .n_query = group,
            .k = k.data + offset,
            .v = v.data + offset,
            .row_bytes = k.row_bytes,
            .q = static_cast<const float *>(q->data) + static_cast<size_t>(r.head_kv) * static_cast<size_t>(group) *
                                                           static_cast<size_t>(self.config_.head_dim),
            .scale = self.config_.kq_scale};
        attend_range(range, static_cast<float *>(dst->data) + i * (dst->nb[2] / sizeof(float)), nullptr);
    }
}

/// dst [head_dim, n_head]; src[0] the partial results.
void DecodeAttention::merge(ggml_tensor * dst, int ith, int nth, void * userdata) {
    const auto & self = *static_cast<const DecodeAttention *>(userdata);
    const ggml_tensor * partial = dst->src[0];
    const size_t stride = partial->nb[2] / sizeof(float);
    const int32_t group = self.config_.n_head / self.config_.n_head_kv;
    for (int32_t h = ith; h < self.config_.n_head; h += nth) {
        const auto g = static_cast<size_t>(h / group);
        const int32_t first = self.first_range_[g];
        const float * of_head = static_cast<const float *>(partial->data) + static_cast<size_t>(first) * stride +
                                static_cast<size_t>(h % group) * partial_floats(self.config_.head_dim);
        merge_ranges(
            of_head, stride, self.first_range_[g + 1] - first, self.config_.head_dim,
            static_cast<float *>(dst->data) + static_cast<size_t>(h) * static_cast<size_t>(self.config_.head_dim));
    }
}

ggml_tensor * DecodeAttention::build(const GraphBuilder & b, ggml_tensor * q, ggml_tensor * appended) {
    const int64_t group = config_.n_head / config_.n_head_kv;
    ggml_tensor * args[] = {q, appended};
    ggml_tensor * partial =
        ggml_custom_4d(b.ctx, GGML_TYPE_F32, static_cast<int64_t>(partial_floats(config_.head_dim)), group,
                       static_cast<int64_t>(ranges_.size()), 1, args, 2, attend, GGML_N_TASKS_MAX, this);
    return ggml_custom_4d(b.ctx, GGML_TYPE_F32, config_.head_dim, config_.n_head, 1, 1, &partial, 1, merge,
                          GGML_N_TASKS_MAX, this);
}

}  // namespace kvsieve
