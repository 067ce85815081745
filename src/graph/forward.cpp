// SPDX-License-Identifier: MIT
#include "graph/forward.h"

#include <numeric>
#include <utility>
#include <vector>

namespace kvsieve {
namespace {

/// Nodes of one layer beside attention, and of attention per KV head where heads differ in length.
constexpr size_t kLayerNodes = 64;
constexpr size_t kHeadNodes = 16;

}  // namespace

void embed_tokens(GraphRunner & runner, const Decoder & decoder, std::span<const int32_t> tokens,
                  std::span<float> out) {
    const auto n_embd = static_cast<size_t>(decoder.config().n_embd);
    size_t first = 0;
    while (first < tokens.size()) {
        if (tokens[first] < 0) {
            ++first;
            continue;
        }
        size_t last = first;
        while (last < tokens.size() && tokens[last] >= 0 && last - first < static_cast<size_t>(kChunkTokens)) {
            ++last;
        }
        const auto n = static_cast<int64_t>(last - first);
        runner.run(8, [&](GraphBuilder & b) {
            ggml_tensor * ids = b.external(GGML_TYPE_I32, n, 1, 1, const_cast<int32_t *>(tokens.data() + first));
            ggml_tensor * rows = b.external(GGML_TYPE_F32, decoder.config().n_embd, n, 1, out.data() + first * n_embd);
            b.expand(ggml_cpy(b.ctx, decoder.embed(b, ids), rows));
        });
        first = last;
    }
}

void forward(GraphRunner & runner, const Decoder & decoder, RaggedKvCache & cache, std::span<float> residual,
             int32_t first, std::span<float> logits, const AttentionOptions & options) {
    const DecoderConfig & config = decoder.config();
    const auto n = static_cast<int32_t>(residual.size() / static_cast<size_t>(config.n_embd));
    std::vector<int32_t> positions(static_cast<size_t>(n));
    std::iota(positions.begin(), positions.end(), first);
    RaggedAttention attention(cache, config, n, first, options);

    // one token: all layers in one graph; more: a graph per layer, so that one layer's masks are held at a time
    const int32_t layers_per_graph = n == 1 ? config.n_layer : 1;
    for (int32_t il0 = 0; il0 < config.n_layer; il0 += layers_per_graph) {
        const size_t max_nodes =
            static_cast<size_t>(layers_per_graph) * (kLayerNodes + kHeadNodes * static_cast<size_t>(config.n_head_kv)) +
            16;
        runner.run(max_nodes, [&](GraphBuilder & b) {
            ggml_tensor * stream = b.external(GGML_TYPE_F32, config.n_embd, n, 1, residual.data());
            ggml_tensor * pos = b.external(GGML_TYPE_I32, n, 1, 1, positions.data());
            ggml_tensor * x = stream;
            for (int32_t il = il0; il < il0 + layers_per_graph; ++il) {
                x = decoder.finish_layer(b, il, x, attention.build(b, il, decoder.qkv(b, il, x, pos)));
            }
            if (il0 + layers_per_graph < config.n_layer) {
                b.expand(ggml_cpy(b.ctx, x, stream));
            } else if (!logits.empty()) {
                ggml_tensor * last =
                    ggml_view_2d(b.ctx, x, config.n_embd, 1, x->nb[1], static_cast<size_t>(n - 1) * x->nb[1]);
                b.expand(ggml_cpy(b.ctx, decoder.logits(b, last),
                                  b.external(GGML_TYPE_F32, config.n_vocab, 1, 1, logits.data())));
            } else {
                b.expand(x);
            }
        });
        attention.check();
    }
}

void forward_batch(GraphRunner & runner, const Decoder & decoder, std::span<const BatchLane> lanes,
                   std::span<float> residual) {
    const DecoderConfig & config = decoder.config();
    const auto n = static_cast<int64_t>(lanes.size());
    std::vector<int32_t> positions;
    std::vector<Lane> attending;
    for (const BatchLane & one : lanes) {
        positions.push_back(one.lane.position);
        attending.push_back(one.lane);
    }
    LaneAttention attention(std::move(attending), config);
    runner.run(static_cast<size_t>(config.n_layer) * kLayerNodes + 16 + lanes.size() * 4, [&](GraphBuilder & b) {
        ggml_tensor * pos = b.external(GGML_TYPE_I32, n, 1, 1, positions.data());
        ggml_tensor * x = b.external(GGML_TYPE_F32, config.n_embd, n, 1, residual.data());
        for (int32_t il = 0; il < config.n_layer; ++il) {
            x = decoder.finish_layer(b, il, x, attention.build(b, il, decoder.qkv(b, il, x, pos)));
        }
        ggml_tensor * logits = decoder.logits(b, x);
        for (size_t i = 0; i < lanes.size(); ++i) {
            ggml_tensor * own = ggml_view_2d(b.ctx, logits, config.n_vocab, 1, logits->nb[1], i * logits->nb[1]);
            b.expand(ggml_cpy(b.ctx, own, b.external(GGML_TYPE_F32, config.n_vocab, 1, 1, lanes[i].logits.data())));
        }
    });
    attention.check();
}

}  // namespace kvsieve
