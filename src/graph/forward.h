// SPDX-License-Identifier: MIT
// Token embeddings, and the forward pass of new tokens over a cache that holds everything before them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cache/ragged_kv_cache.h"
#include "graph/arch.h"
#include "graph/ragged_attention.h"

namespace kvsieve {

/// Most tokens that one operation works on.
inline constexpr int32_t kChunkTokens = 512;

/// Writes the embeddings of text tokens into out [tokens.size()][n_embd]; negative ids (visual tokens) are left as
/// they are. All ids must be inside the vocabulary.
void embed_tokens(GraphRunner & runner, const Decoder & decoder, std::span<const int32_t> tokens, std::span<float> out);

/// Runs n tokens at positions first .. first+n-1 through all layers: appends their rows to the cache and attends over
/// all rows held. `residual` [n][n_embd] is overwritten. `logits` [n_vocab] receives those of the last token; empty =
/// not computed. n at most kChunkTokens.
void forward(GraphRunner & runner, const Decoder & decoder, RaggedKvCache & cache, std::span<float> residual,
             int32_t first, std::span<float> logits, const AttentionOptions & options = {});

/// A sequence of a decode step.
struct BatchLane {
    Lane lane;
    std::span<float> logits;  ///< [n_vocab]; receives those of the lane's token
};

/// Runs one new token of each sequence through all layers at once: the weights are read once for all. `residual`
/// [n_lane][n_embd] holds the embeddings and is overwritten. Caches differ as they like; no two lanes share one.
void forward_batch(GraphRunner & runner, const Decoder & decoder, std::span<const BatchLane> lanes,
                   std::span<float> residual);

}  // namespace kvsieve
