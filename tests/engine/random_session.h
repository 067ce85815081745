// SPDX-License-Identifier: MIT
// Sessions on a small random model.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "kvsieve/engine.h"
#include "support/random_model.h"

namespace kvsieve::test {

/// 3 layers, room for 8,192 positions.
[[nodiscard]] inline std::shared_ptr<const Model> random_model() {
    static const std::shared_ptr<const Model> model = [] {
        static const TempFile file(".gguf");  // mapped while the program runs
        write_model(narrow_shape(3, 8192), file.path());
        return Model::load({file.path(), std::nullopt, 1});
    }();
    return model;
}

[[nodiscard]] inline std::vector<int32_t> random_tokens(size_t n, uint32_t seed = 1) {
    return some_tokens(n, seed, 270);
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
