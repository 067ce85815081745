// SPDX-License-Identifier: MIT
// Attention of new tokens over the ragged cache: appends their rows, then attends over the final extents.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "cache/ragged_kv_cache.h"
#include "graph/arch.h"
#include "graph/lane_attention.h"

namespace kvsieve {

struct AttentionOptions {
    /// Receives the last token's attention, from the same rows as the output; nullptr: not kept.
    NewestAttention * newest = nullptr;
    /// One token is the kernel's work (lane_attention.h); false takes ggml's operation for it too, the reference.
    bool kernel = true;
};

/// The attention of decoding and of follow-up prompts, for graphs over one cache; no padded or masked copy of it.
/// Several tokens are ggml's flash attention over views into the extents. Must outlive the computation of the graph.
class RaggedAttention {
  public:
    /// `n` new tokens from position `first` on. Makes room for their rows (Error{runtime} when memory is out).
    RaggedAttention(RaggedKvCache & cache, const DecoderConfig & config, int32_t n, int32_t first,
                    const AttentionOptions & options = {});

    /// Adds nodes that append k and v [head_dim, n_head_kv, n] to layer `il` and attend with q [head_dim, n_head, n],
    /// causally among the new tokens. Returns [head_dim * n_head, n].
    ggml_tensor * build(const GraphBuilder & b, int32_t il, const Qkv & qkv);

    /// After the computation: throws Error{runtime} if a row could not be appended.
    void check() const;

  private:
    struct Append {
        RaggedKvCache * cache = nullptr;
        int32_t il = 0;
        int32_t first = 0;
        std::atomic<bool> failed = false;
    };
    static void append_rows(ggml_tensor * dst, int ith, int nth, void * userdata);
    ggml_tensor * attend(const GraphBuilder & b, ggml_tensor * q, ggml_tensor * k, ggml_tensor * v, int32_t n_kv);
    void observe(const GraphBuilder & b, int32_t il, ggml_tensor * q, ggml_tensor * k);
    ggml_tensor * mask(const GraphBuilder & b, int32_t n_kv);

    RaggedKvCache & cache_;
    const DecoderConfig & config_;
    int32_t n_, first_;
    NewestAttention * newest_;
    std::optional<LaneAttention> lane_;  // does all the work where one token is the kernel's
    std::vector<std::unique_ptr<Append>> appends_;
    std::map<int32_t, std::vector<ggml_fp16_t>> masks_;  // of the layer built last, by n_kv: [n][n_kv]
};

}  // namespace kvsieve
