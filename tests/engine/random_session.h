// SPDX-License-Identifier: MIT
// Sessions on a small random model.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "kvsieve/engine.h"
#include "support/random_model.h"

namespace kvsieve::test {

/// 3 layers, 4 query heads over 2 KV heads of 64 (rotated where rows are quantised), room for 8,192 positions.
[[nodiscard]] inline std::shared_ptr<const Model> random_model() {
    static const std::shared_ptr<const Model> model = [] {
        ModelShape shape;
        shape.n_layer = 3;
        shape.n_embd = 64;
        shape.n_head = 4;
        shape.n_head_kv = 2;
        shape.head_dim = 64;
        shape.n_ff = 96;
        shape.n_vocab = 270;
        shape.n_ctx = 8192;
        shape.type = GGML_TYPE_F32;
        static const TempFile file(".gguf");  // mapped while the program runs
        write_model(shape, file.path());
        return Model::load({file.path(), std::nullopt, 1});
    }();
    return model;
}

[[nodiscard]] inline std::vector<int32_t> random_tokens(size_t n, uint32_t seed = 1) {
    std::vector<int32_t> out(n);
    uint32_t state = seed * 2654435761U + 1U;
    for (int32_t & token : out) {
        state = state * 1664525U + 1013904223U;
        token = 5 + static_cast<int32_t>((state >> 8U) % 265U);
    }
    return out;
}

/// Feeds tokens one at a time; the last logits.
inline std::vector<float> feed_one_by_one(Session & session, std::span<const int32_t> tokens) {
    std::vector<float> logits;
    for (const int32_t token : tokens) {
        const auto last = session.feed(std::span<const int32_t>(&token, 1));
        logits.assign(last.begin(), last.end());
    }
    return logits;
}

}  // namespace kvsieve::test
