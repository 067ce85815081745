// SPDX-License-Identifier: MIT
// A decoder with its cache on the level of the graph layer, for tests on small random models.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cache/ragged_kv_cache.h"
#include "gguf/gguf_file.h"
#include "graph/forward.h"
#include "graph/prefill.h"
#include "support/random_model.h"

namespace kvsieve::test {

class TinyRun {
  public:
    explicit TinyRun(const std::filesystem::path & path, KvType type = KvType::f16, bool rotate = true,
                     int32_t n_ctx = 0, int32_t n_threads = 1)
        : file(path),
          weights(file),
          decoder(make_decoder(file, weights, n_ctx)),
          runner(n_threads),
          cache({config().n_layer, config().n_head_kv, config().head_dim, type, rotate}) {}

    [[nodiscard]] const DecoderConfig & config() const { return decoder->config(); }

    [[nodiscard]] std::vector<float> embed(std::span<const int32_t> tokens) {
        std::vector<float> out(tokens.size() * static_cast<size_t>(config().n_embd));
        embed_tokens(runner, *decoder, tokens, out);
        return out;
    }

    /// The last token's logits.
    std::vector<float> prefill(std::span<const int32_t> tokens, const Method & method, bool observe,
                               std::vector<uint8_t> visual_mask = {}, const ProbeSource & source = {}) {
        PromptShape shape{config().n_layer,
                          config().n_head,
                          config().n_head_kv,
                          config().head_dim,
                          static_cast<int32_t>(tokens.size()),
                          std::move(visual_mask)};
        Prefill work(runner, *decoder, cache, method, shape, embed(tokens), observe, {}, source);
        while (work.step()) {
        }
        plan = work.take_plan();
        n_processed = static_cast<int32_t>(tokens.size());
        peak_kv = work.peak_kv_bytes();
        return work.take_logits();
    }
    std::vector<float> prefill(std::span<const int32_t> tokens) {
        return prefill(tokens, *make_method("full", {}), false);
    }

    /// Appends tokens in chunks, without eviction; the last token's logits.
    std::vector<float> extend(std::span<const int32_t> tokens) {
        std::vector<float> logits(static_cast<size_t>(config().n_vocab));
        std::vector<float> residual = embed(tokens);
        for (size_t first = 0; first < tokens.size(); first += kChunkTokens) {
            const size_t n = std::min<size_t>(kChunkTokens, tokens.size() - first);
            const auto width = static_cast<size_t>(config().n_embd);
            forward(runner, *decoder, cache, std::span(residual).subspan(first * width, n * width), n_processed, logits,
                    {.kernel = kernel});
            n_processed += static_cast<int32_t>(n);
        }
        return logits;
    }

    GgufFile file;
    Weights weights;
    std::unique_ptr<Decoder> decoder;
    GraphRunner runner;
    RaggedKvCache cache;
    bool kernel = true;  // decodes; false: ggml's operation
    Plan plan;
    int32_t n_processed = 0;
    uint64_t peak_kv = 0;
};

}  // namespace kvsieve::test
