// SPDX-License-Identifier: MIT
// The one attention op of prefill, with capture of column sums and of single rows.
#pragma once

#include <hwy/aligned_allocator.h>

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "cache/arena.h"
#include "graph/arch.h"
#include "graph/prefill_kernel.h"

namespace kvsieve {

/// Keys and values of one layer while it is prefilled, f16, [n_head_kv][stride][head_dim] each, rotated at their
/// positions. One such buffer serves all layers in turn. The stride is n_tokens rounded up to kRowPad: products over
/// the rows go several times faster with a multiple of it. Rows behind n_tokens are finite and have no weight.
class LayerKv {
  public:
    LayerKv(const DecoderConfig & config, int32_t n_tokens);
    static constexpr int32_t kRowPad = 16;
    [[nodiscard]] static constexpr int32_t padded(int32_t n_rows) { return (n_rows + kRowPad - 1) / kRowPad * kRowPad; }

    [[nodiscard]] int32_t n_tokens() const { return n_tokens_; }
    [[nodiscard]] const ggml_fp16_t * keys() const;
    [[nodiscard]] const ggml_fp16_t * values() const;
    /// Elements from a head's rows to the next head's.
    [[nodiscard]] size_t head_stride() const;
    [[nodiscard]] uint64_t bytes() const { return arena_.size(); }
    /// Of a layer with n_tokens, known before it is made.
    [[nodiscard]] static uint64_t bytes_of(const DecoderConfig & config, int32_t n_tokens);
    /// From the next layer on there are only so many tokens; the memory behind them is given back.
    void shrink(int32_t n_tokens);

    /// Adds nodes that write the rows of n tokens from position `first` on; k and v are [head_dim, n_head_kv, n].
    void store(const GraphBuilder & b, int32_t first, ggml_tensor * k, ggml_tensor * v);
    /// Rows 0 .. n_rows-1 as f16 tensors [head_dim, n_rows, n_head_kv]; n_rows is at most padded(n_tokens()).
    [[nodiscard]] ggml_tensor * key_view(const GraphBuilder & b, int32_t n_rows) const;
    [[nodiscard]] ggml_tensor * value_view(const GraphBuilder & b, int32_t n_rows) const;

  private:
    [[nodiscard]] ggml_tensor * view(const GraphBuilder & b, const ggml_fp16_t * rows, int32_t first,
                                     int32_t n_rows) const;
    int32_t n_tokens_, head_dim_, n_head_kv_;
    Arena arena_;  // keys, then values; straight from the kernel, so that it is given back when prefill ends
};

/// Column sums of softmax attention, [n_head][n_tokens], added up block by block in query order: the result does
/// not depend on the number of threads.
struct ColumnSums {
    int32_t n_head = 0, n_tokens = 0;
    std::vector<float> sums;
    void reset(int32_t heads, int32_t tokens);
};

/// What attend_block() works in, for each thread.
class BlockWork {
  public:
    /// For blocks that see n_rows rows. Throws Error{runtime} when there is no memory.
    void reserve(int32_t n_threads, int32_t head_dim, int32_t n_rows);
    [[nodiscard]] float * of(int thread) const { return floats_.get() + static_cast<size_t>(thread) * stride_; }
    [[nodiscard]] uint64_t bytes() const { return size_ * sizeof(float); }

  private:
    hwy::AlignedFreeUniquePtr<float[]> floats_;
    size_t stride_ = 0, size_ = 0;
};

/// Causal attention of one chunk of queries at a time: by our own kernel, with which a query's output does not depend
/// on the chunk in which it comes, or by ggml's operations, the reference. Must outlive the computation of the graphs
/// that it builds.
class PrefillAttention {
  public:
    PrefillAttention(const DecoderConfig & config, int32_t n_threads) : config_(config), n_threads_(n_threads) {}

    void use_kernel(bool yes) { use_kernel_ = yes; }

    /// Adds nodes that write the attention of q [head_dim, n_head, n] at positions first .. first+n-1 over the layer's
    /// rows 0 .. first+n-1 to `heads` [n][n_head][head_dim], behind the nodes that store these rows. `sums` may be
    /// nullptr: nothing is captured then.
    void build(const GraphBuilder & b, const LayerKv & kv, int32_t first, ggml_tensor * q, ColumnSums * sums,
               float * heads);
    /// Most nodes that build() adds for n queries from `first` on.
    [[nodiscard]] size_t nodes(int32_t first, int32_t n) const;
    /// Of the kernel's working memory: for each thread the scores of a block of queries.
    [[nodiscard]] uint64_t bytes() const { return work_.bytes(); }

  private:
    void build_with_kernel(const GraphBuilder & b, const LayerKv & kv, int32_t first, ggml_tensor * q,
                           ColumnSums * sums, float * heads);
    void build_with_ggml(const GraphBuilder & b, const LayerKv & kv, int32_t first, ggml_tensor * q, ColumnSums * sums,
                         float * heads) const;
    static void attend(ggml_tensor * dst, int ith, int nth, void * userdata);
    static void add_up(ggml_tensor * dst, const ggml_tensor * sums, int ith, int nth, void * userdata);
    [[nodiscard]] int32_t n_block() const { return (n_ + kQueryBlock - 1) / kQueryBlock; }

    const DecoderConfig & config_;
    int32_t n_threads_;
    bool use_kernel_ = true;
    BlockWork work_;
    // the chunk in work
    const LayerKv * kv_ = nullptr;
    int32_t first_ = 0, n_ = 0;
    ColumnSums * sums_ = nullptr;
    float * heads_ = nullptr;
    std::atomic<int32_t> next_ = 0;  // pair of block and head that no thread has taken
};

/// Softmax rows [n_head][n][n_tokens] of single queries at `positions` (causal).
/// `queries`: [n][n_head][head_dim], rotated.
void attention_rows(GraphRunner & runner, const DecoderConfig & config, const LayerKv & kv,
                    std::span<const int32_t> positions, std::span<const float> queries, std::vector<float> & out);

}  // namespace kvsieve
