// SPDX-License-Identifier: MIT
#include "graph/lane_attention.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "kvsieve/error.h"

namespace kvsieve {

LaneAttention::LaneAttention(std::vector<Lane> lanes, const DecoderConfig & config)
    : lanes_(std::move(lanes)), config_(config) {
    for (const Lane & lane : lanes_) {
        lane.cache->reserve(1);
        if (lane.newest != nullptr) {
            lane.newest->assign(static_cast<size_t>(config.n_layer), {});
        }
    }
}

/// Heads of all lanes are split over the threads.
void LaneAttention::append_rows(ggml_tensor * dst, int ith, int nth, void * userdata) {
    auto & append = *static_cast<Append *>(userdata);
    const std::vector<Lane> & lanes = append.lanes->lanes_;
    const auto rows = [](const ggml_tensor * t, size_t lane) {
        return F32Rows{reinterpret_cast<const float *>(static_cast<const char *>(t->data) + lane * t->nb[2]),
                       t->nb[1] / sizeof(float), t->nb[2] / sizeof(float)};
    };
    const auto n_head = static_cast<int32_t>(dst->src[0]->ne[1]);
    const auto n_all = static_cast<int32_t>(lanes.size()) * n_head;
    for (int32_t i = n_all * ith / nth; i < n_all * (ith + 1) / nth; ++i) {
        const auto at = static_cast<size_t>(i / n_head);
        const int32_t g = i % n_head;
        if (!lanes[at].cache->append(append.il, rows(dst->src[0], at), rows(dst->src[1], at), 1, lanes[at].position, g,
                                     g + 1)) {
            append.failed = true;
        }
    }
}

/// Copies src [d, n_head, n_lane] to dst and rotates the heads that want it; rows are split over the threads.
void LaneAttention::rotate_lanes(ggml_tensor * dst, const ggml_tensor * src, int ith, int nth, void * userdata) {
    const auto & blocks = *static_cast<const std::vector<int32_t> *>(userdata);
    const auto d = static_cast<size_t>(src->ne[0]);
    for (int64_t row = ith; row < src->ne[1] * src->ne[2]; row += nth) {
        float * to = static_cast<float *>(dst->data) + static_cast<size_t>(row) * d;
        std::memcpy(to, static_cast<const float *>(src->data) + static_cast<size_t>(row) * d, d * sizeof(float));
        if (const int32_t block = blocks[static_cast<size_t>(row)]; block > 0) {
            hadamard_rotate({to, d}, block);
        }
    }
}

ggml_tensor * LaneAttention::rotate(const GraphBuilder & b, ggml_tensor * x, std::vector<int32_t> & blocks) {
    if (!ggml_is_contiguous(x)) {
        x = ggml_cont(b.ctx, x);
    }
    const bool any = std::any_of(blocks.begin(), blocks.end(), [](int32_t block) { return block > 0; });
    return any ? ggml_map_custom1(b.ctx, x, rotate_lanes, GGML_N_TASKS_MAX, &blocks) : x;
}

/// Of the queries (rows = k_rows) or the outputs (v_rows) of a layer's heads.
std::vector<int32_t> & LaneAttention::blocks_of(int32_t il, KvRowsView (RaggedKvCache::*rows)(int32_t, int32_t) const) {
    std::vector<int32_t> & blocks = blocks_.emplace_back();
    for (const Lane & lane : lanes_) {
        for (int32_t h = 0; h < config_.n_head; ++h) {
            blocks.push_back((lane.cache->*rows)(il, h / (config_.n_head / config_.n_head_kv)).rotation);
        }
    }
    return blocks;
}

ggml_tensor * LaneAttention::build(const GraphBuilder & b, int32_t il, const Qkv & qkv) {
    appends_.push_back(std::make_unique<Append>());
    appends_.back()->lanes = this;
    appends_.back()->il = il;
    ggml_tensor * args[] = {qkv.k, qkv.v};
    ggml_tensor * appended =
        ggml_custom_4d(b.ctx, GGML_TYPE_F32, 1, 1, 1, 1, args, 2, append_rows, GGML_N_TASKS_MAX, appends_.back().get());
    b.expand(appended);

    std::vector<DecodeLane> decode;
    for (const Lane & lane : lanes_) {
        decode.push_back({lane.cache, lane.newest == nullptr ? nullptr : &(*lane.newest)[static_cast<size_t>(il)]});
    }
    decodes_.push_back(std::make_unique<DecodeAttention>(decode, config_, il));
    ggml_tensor * heads = decodes_.back()->build(b, rotate(b, qkv.q, blocks_of(il, &RaggedKvCache::k_rows)), appended);
    return ggml_reshape_2d(b.ctx, rotate(b, heads, blocks_of(il, &RaggedKvCache::v_rows)),
                           int64_t{config_.head_dim} * config_.n_head, static_cast<int64_t>(lanes_.size()));
}

void LaneAttention::check() const {
    for (const auto & append : appends_) {
        if (append->failed) {
            throw Error(ErrorCode::runtime,
                        "the cache of layer " + std::to_string(append->il) + " had no room for a new row");
        }
    }
}

}  // namespace kvsieve
