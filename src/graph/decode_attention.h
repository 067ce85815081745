// SPDX-License-Identifier: MIT
// Attention of one new token over a layer's extents, by our own kernel as two ggml nodes: partial results per range of
// slots, then their merge. The ranges and the order of the merge are fixed, so the result does not depend on threads.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "cache/ragged_kv_cache.h"
#include "graph/arch.h"

namespace kvsieve {

/// One layer of one sequence. Must outlive the computation of the graph; the cache must not move rows until then.
class DecodeAttention {
  public:
    /// The layer will hold one row more in every extent when the nodes run (RaggedKvCache::reserve() was called).
    /// `newest`, if not null, receives the softmax attention on all rows, [H][n_rows of the head's KV head].
    DecodeAttention(const RaggedKvCache & cache, const DecoderConfig & config, int32_t il, std::vector<float> * newest);

    /// q [head_dim, n_head] in the rotation of the rows; `appended` is the node that stores the new row.
    /// Returns [head_dim, n_head].
    ggml_tensor * build(const GraphBuilder & b, ggml_tensor * q, ggml_tensor * appended);

  private:
    /// Rows of one KV head.
    struct Extent {
        int32_t n_rows = 0;
        int32_t first_range = 0;
        size_t first_weight = 0;  // of its first query head, in `weights_`
    };
    /// Up to kRangeSlots rows of one KV head.
    struct Range {
        int32_t head_kv = 0;
        int32_t first_row = 0;
        int32_t n_rows = 0;
    };
    static void attend(ggml_tensor * dst, int ith, int nth, void * userdata);
    static void merge(ggml_tensor * dst, int ith, int nth, void * userdata);

    const RaggedKvCache & cache_;
    const DecoderConfig & config_;
    int32_t il_;
    int32_t group_;                       // query heads of a KV head
    float * weights_ = nullptr;           // [H][n_rows of the head's KV head]
    std::vector<Extent> extents_;         // [n_head_kv]
    std::vector<Range> ranges_;           // by KV head, then by row
    std::atomic<size_t> next_range_ = 0;  // that no thread has taken
};

}  // namespace kvsieve
