// SPDX-License-Identifier: MIT
#include "graph/decode_attention.h"

#include <algorithm>

#include "graph/attention_kernel.h"

namespace kvsieve {

DecodeAttention::DecodeAttention(std::span<const DecodeLane> lanes, const DecoderConfig & config, int32_t il)
    : config_(config), il_(il), n_lane_(static_cast<int32_t>(lanes.size())), group_(config.n_head / config.n_head_kv) {
    extents_.reserve(lanes.size() * static_cast<size_t>(config.n_head_kv));
    for (const DecodeLane & lane : lanes) {
        size_t n_weights = 0;
        const size_t first_extent = extents_.size();
        for (int32_t g = 0; g < config.n_head_kv; ++g) {
            const int32_t n_rows = lane.cache->n_rows(il, g) + 1;
            extents_.push_back({lane.cache, g, n_rows, static_cast<int32_t>(ranges_.size())});
            for (int32_t first = 0; first < n_rows; first += kRangeSlots) {
                ranges_.push_back(
                    {static_cast<int32_t>(extents_.size()) - 1, first, std::min(kRangeSlots, n_rows - first)});
            }
            n_weights += static_cast<size_t>(group_) * static_cast<size_t>(n_rows);
        }
        if (lane.newest != nullptr) {
            lane.newest->resize(n_weights);
            float * weights = lane.newest->data();
            for (size_t e = first_extent; e < extents_.size(); ++e) {
                extents_[e].weights = weights;
                weights += static_cast<size_t>(group_) * static_cast<size_t>(extents_[e].n_rows);
            }
        }
    }
}

/// Range i of those before `last`, which the same thread will most likely take next.
void DecodeAttention::attend(size_t i, size_t last, ggml_tensor * dst) const {
    const auto rows_of = [&](const Range & r, KvRowsView (RaggedKvCache::*rows)(int32_t, int32_t) const) {
        const Extent & extent = extents_[static_cast<size_t>(r.extent)];
        KvRowsView view = (extent.cache->*rows)(il_, extent.head_kv);
        view.data += static_cast<size_t>(r.first_row) * view.row_bytes;
        return view;
    };
    const Range & r = ranges_[i];
    const auto e = static_cast<size_t>(r.extent);
    const Extent & extent = extents_[e];
    const KvRowsView k = rows_of(r, &RaggedKvCache::k_rows);
    // query heads stand in the order of KV heads, lanes behind each other: as the extents
    const auto * q = static_cast<const float *>(dst->src[0]->data) +
                     e * static_cast<size_t>(group_) * static_cast<size_t>(config_.head_dim);
    const AttendRange range{.type = k.type,
                            .head_dim = config_.head_dim,
                            .n_rows = r.n_rows,
                            .n_query = group_,
                            .k = k.data,
                            .v = rows_of(r, &RaggedKvCache::v_rows).data,
                            .row_bytes = k.row_bytes,
                            .q = q,
                            .scale = config_.kq_scale,
                            .next = i + 1 < last ? rows_of(ranges_[i + 1], &RaggedKvCache::k_rows).data : nullptr};
    attend_range(range, static_cast<float *>(dst->data) + i * (dst->nb[2] / sizeof(float)),
                 extent.weights == nullptr ? nullptr : extent.weights + r.first_row,
                 static_cast<size_t>(extent.n_rows));
}

/// dst [partial_floats, group, ranges]; a thread that has nothing left to do goes on in the next one's share, and
/// writes what that one would have written.
void DecodeAttention::attend(ggml_tensor * dst, int ith, int nth, void * userdata) {
    auto & self = *static_cast<DecodeAttention *>(userdata);
    const size_t n = self.ranges_.size(), n_share = std::min(self.shares_.size(), static_cast<size_t>(nth));
    for (size_t s = 0; s < n_share; ++s) {
        const size_t share = (static_cast<size_t>(ith) + s) % n_share;
        const size_t first = n * share / n_share, last = n * (share + 1) / n_share;
        for (size_t i = 0; (i = first + self.shares_[share].n_taken.fetch_add(1, std::memory_order_relaxed)) < last;) {
            self.attend(i, last, dst);
        }
    }
}

/// dst [head_dim, n_head, n_lane]; src[0] the partial results.
void DecodeAttention::merge(ggml_tensor * dst, int ith, int nth, void * userdata) {
    auto & self = *static_cast<DecodeAttention *>(userdata);
    for (size_t share = static_cast<size_t>(ith); share < self.shares_.size(); share += static_cast<size_t>(nth)) {
        self.shares_[share].n_taken.store(0, std::memory_order_relaxed);  // nodes are separated by a barrier
    }
    const ggml_tensor * partial = dst->src[0];
    const size_t stride = partial->nb[2] / sizeof(float);
    const auto d = static_cast<size_t>(self.config_.head_dim);
    for (int32_t h = ith; h < self.config_.n_head * self.n_lane_; h += nth) {
        const Extent & extent = self.extents_[static_cast<size_t>(h / self.group_)];
        const auto in_group = static_cast<size_t>(h % self.group_);
        const float * of_head = static_cast<const float *>(partial->data) +
                                static_cast<size_t>(extent.first_range) * stride +
                                in_group * partial_floats(self.config_.head_dim);
        const int32_t n_range = (extent.n_rows + kRangeSlots - 1) / kRangeSlots;
        const PartialHead whole = merge_ranges(of_head, stride, n_range, self.config_.head_dim,
                                               static_cast<float *>(dst->data) + static_cast<size_t>(h) * d);
        if (extent.weights != nullptr) {
            normalise_weights(of_head, stride, whole, extent.n_rows,
                              extent.weights + in_group * static_cast<size_t>(extent.n_rows));
        }
    }
}

ggml_tensor * DecodeAttention::build(const GraphBuilder & b, ggml_tensor * q, ggml_tensor * appended) {
    ggml_tensor * args[] = {q, appended};
    ggml_tensor * partial =
        ggml_custom_4d(b.ctx, GGML_TYPE_F32, static_cast<int64_t>(partial_floats(config_.head_dim)), group_,
                       static_cast<int64_t>(ranges_.size()), 1, args, 2, attend, GGML_N_TASKS_MAX, this);
    return ggml_custom_4d(b.ctx, GGML_TYPE_F32, config_.head_dim, config_.n_head, n_lane_, 1, &partial, 1, merge,
                          GGML_N_TASKS_MAX, this);
}

}  // namespace kvsieve
