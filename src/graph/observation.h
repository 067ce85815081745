// SPDX-License-Identifier: MIT
// What a method sees of the layer in work, as far as its traits ask for it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "graph/prefill_attention.h"
#include "graph/probes.h"
#include "graph/query_stats.h"
#include "kvsieve/policy.h"

namespace kvsieve {

/// Attention rows are computed in blocks of so many neighbouring queries, aligned to multiples of it: a row's bits do
/// not depend on which rows are asked for together, so that a dump holds exactly what any method sees.
inline constexpr int32_t kRowBlock = 16;

/// First query whose attention rows these traits ask for; n_tokens = none.
[[nodiscard]] int32_t first_row(const Traits & traits, const PromptShape & shape);

/// Captures column sums, queries and their statistics while a layer is prefilled, then lets a method score it.
/// One object serves all observed layers in turn.
class LayerCapture {
  public:
    /// `traits` with everything off: captures nothing. References must outlive this.
    LayerCapture(GraphRunner & runner, const Decoder & decoder, const LayerKv & kv, const Traits & traits,
                 const PromptShape & shape, const ProbeSource & source);

    /// Before a layer's first chunk.
    void begin_layer();
    /// Column sums to be filled by prefill_attention(), or nullptr.
    [[nodiscard]] ColumnSums * sums() { return capture_sums_ ? &sums_ : nullptr; }
    /// Adds nodes that take what is wanted of the queries of a chunk that begins at token `first`.
    void add_queries(const GraphBuilder & b, int32_t first, const Qkv & qkv);
    /// After the last chunk.
    [[nodiscard]] LayerScore score(const Method & method, int32_t il);
    [[nodiscard]] uint64_t bytes() const;

  private:
    [[nodiscard]] LayerProbes own_probes() const;

    GraphRunner & runner_;
    const Decoder & decoder_;
    const DecoderConfig & config_;
    const LayerKv & kv_;
    Traits traits_;
    const PromptShape & shape_;
    bool capture_sums_;
    ColumnSums sums_;
    std::optional<QueryStats> stats_;
    int32_t row_first_;                   // rotated queries from this token on are saved
    std::vector<int32_t> row_positions_;  // row_first .. T-1
    std::vector<float> queries_;          // [T - row_first][n_head][head_dim]
    ProbeSource source_;
    int32_t unrotated_first_;       // queries before RoPE from this token on are saved
    std::vector<float> unrotated_;  // [T - unrotated_first][n_head][head_dim]
    int32_t n_own_ = 0;             // the last so many of them stand in the probes' place
    // of these, [n_head][n_own]
    std::vector<int32_t> own_offsets_;
    std::vector<float> own_weights_, own_shares_;
};

}  // namespace kvsieve
