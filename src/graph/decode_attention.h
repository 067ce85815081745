// SPDX-License-Identifier: MIT
// Attention of one new token of each of several sequences over a layer's extents, by our own kernel as two ggml nodes:
// partial results per range of slots, then their merge. The ranges and the order of the merge are fixed, so a
// sequence's result depends neither on threads nor on its neighbours.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cache/ragged_kv_cache.h"
#include "graph/arch.h"

namespace kvsieve {

/// A sequence whose new token attends.
struct DecodeLane {
    const RaggedKvCache * cache = nullptr;
    /// If not null, receives the softmax attention on all rows, [H][n_rows of the head's KV head].
    std::vector<float> * newest = nullptr;
};

/// One layer. Must outlive the computation of the graph; the caches must not move rows until then.
class DecodeAttention {
  public:
    /// The layer will hold one row more in every extent of each lane when the nodes run (RaggedKvCache::reserve() was
    /// called). Row types may differ between lanes.
    DecodeAttention(std::span<const DecodeLane> lanes, const DecoderConfig & config, int32_t il);

    /// q [head_dim, n_head, n_lane], contiguous, in the rotation of each lane's rows; `appended` is the node that
    /// stores the new rows. Returns [head_dim, n_head, n_lane].
    ggml_tensor * build(const GraphBuilder & b, ggml_tensor * q, ggml_tensor * appended);

  private:
    /// Rows of one KV head of one lane.
    struct Extent {
        const RaggedKvCache * cache = nullptr;
        int32_t head_kv = 0;
        int32_t n_rows = 0;
        int32_t first_range = 0;
        float * weights = nullptr;  // [group][n_rows], or null
    };
    /// Up to kRangeSlots rows of one extent.
    struct Range {
        int32_t extent = 0;
        int32_t first_row = 0;
        int32_t n_rows = 0;
    };
    /// Consecutive ranges, those that a thread begins with: it reads memory in the order in which it lies.
    struct alignas(64) Share {
        std::atomic<size_t> n_taken = 0;
    };
    static void attend(ggml_tensor * dst, int ith, int nth, void * userdata);
    void attend(size_t i, size_t last, ggml_tensor * dst) const;
    static void merge(ggml_tensor * dst, int ith, int nth, void * userdata);

    const DecoderConfig & config_;
    int32_t il_;
    int32_t n_lane_;
    int32_t group_;                 // query heads of a KV head
    std::vector<Extent> extents_;   // [n_lane][n_head_kv]
    std::vector<Range> ranges_;     // by extent, then by row
    std::array<Share, 32> shares_;  // of threads; where there are more of them, several begin in one
};

}  // namespace kvsieve
