// SPDX-License-Identifier: MIT
// Made-up prompts with full attention, reduced to what methods observe.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kvsieve/error.h"
#include "kvsieve/policy.h"

namespace kvsieve::test {

/// What a random prompt's attention looks like.
enum class Pattern { softmax, ties, constant, sink, zero, huge };
inline constexpr int kPatterns = 6;

class FakeLayer final : public LayerObservation {
  public:
    FakeLayer(const PromptShape & prompt, Pattern pattern, std::mt19937 & random) : prompt_(prompt) {
        const auto n = static_cast<size_t>(prompt.n_tokens), n_head = static_cast<size_t>(prompt.n_head);
        attention_.assign(n_head * n * n, 0.0F);
        std::uniform_real_distribution<float> uniform(0.0F, 1.0F);
        for (size_t hq = 0; hq < n_head * n; ++hq) {
            const size_t q = hq % n;
            float * row = attention_.data() + hq * n;
            for (size_t k = 0; k <= q; ++k) {
                switch (pattern) {
                    case Pattern::softmax:
                        row[k] = std::exp(4.0F * uniform(random));
                        break;
                    case Pattern::ties:
                        row[k] = uniform(random) < 0.5F ? 1.0F : 2.0F;
                        break;
                    case Pattern::constant:
                        row[k] = 1.0F;
                        break;
                    case Pattern::sink:
                        row[k] = k == 0 ? 1.0F : 0.0F;
                        break;
                    case Pattern::zero:
                        break;
                    case Pattern::huge:
                        row[k] = 3e38F * uniform(random);
                        break;
                }
            }
            if (pattern != Pattern::huge) {
                float sum = 0;
                for (size_t k = 0; k <= q; ++k) {
                    sum += row[k];
                }
                for (size_t k = 0; k <= q; ++k) {
                    row[k] = sum > 0 ? row[k] / sum : 0.0F;
                }
            }
        }
        importance_.assign(n, 0.0F);
        colsum_.assign(n_head * n, 0.0F);
        for (size_t i = 0; i < attention_.size(); ++i) {
            float & sum = colsum_[i / (n * n) * n + i % n];
            sum = std::min(sum + attention_[i], 3e38F);
        }
        for (size_t i = 0; i < colsum_.size(); ++i) {
            importance_[i % n] += colsum_[i] / static_cast<float>(n_head);
        }
        for (int32_t k = 0; k < prompt.n_tokens; ++k) {
            positions_.push_back(k);
        }
        const auto n_cached = static_cast<size_t>(prompt.n_head_kv) * n * static_cast<size_t>(prompt.head_dim);
        for (size_t i = 0; i < n_cached; ++i) {
            keys_.push_back(uniform(random) - 0.5F);
            values_.push_back(uniform(random) - 0.5F);
        }
        for (size_t i = 0; i < colsum_.size(); ++i) {
            const float mean = colsum_[i] / static_cast<float>(n);
            probe_mean_.push_back(mean);
            probe_square_.push_back(std::min(2 * mean * mean, 3e38F));
            output_norm_.push_back(values_.empty() ? 1.0F : std::abs(values_[i % values_.size()]));
        }
        importance = importance_;
        colsum = colsum_;
        keys = keys_;
        values = values_;
        probe_mean = probe_mean_;
        probe_square = probe_square_;
        output_norm = output_norm_;
        row_positions = positions_;
    }

    void rows(std::span<const int32_t> positions, std::vector<float> & out) const override {
        const auto n = static_cast<size_t>(prompt_.n_tokens);
        out.clear();
        for (size_t h = 0; h < static_cast<size_t>(prompt_.n_head); ++h) {
            for (const int32_t q : positions) {
                const auto row = attention_.begin() + static_cast<std::ptrdiff_t>((h * n + static_cast<size_t>(q)) * n);
                out.insert(out.end(), row, row + static_cast<std::ptrdiff_t>(n));
            }
        }
        largest_ask = std::max(largest_ask, positions.size());
    }

    mutable size_t largest_ask = 0;  ///< most rows asked for at once

  private:
    PromptShape prompt_;
    std::vector<float> attention_, importance_, colsum_, keys_, values_, probe_mean_, probe_square_, output_norm_;
    std::vector<int32_t> positions_;
};

struct FakePrompt {
    PromptShape shape;
    std::vector<std::unique_ptr<FakeLayer>> layers;
};

inline FakePrompt fake_prompt(PromptShape shape, Pattern pattern, uint32_t seed) {
    std::mt19937 random(seed);
    FakePrompt out{.shape = std::move(shape), .layers = {}};
    for (int32_t il = 0; il < out.shape.n_layer; ++il) {
        out.layers.push_back(std::make_unique<FakeLayer>(out.shape, pattern, random));
    }
    return out;
}

inline std::vector<LayerScore> score_all(const Method & method, const FakePrompt & prompt) {
    std::vector<LayerScore> out;
    for (int32_t il = 0; il < prompt.shape.n_layer; ++il) {
        out.push_back(method.score(prompt.shape, il, *prompt.layers[static_cast<size_t>(il)]));
    }
    return out;
}

/// The sentence of the Error that the call throws; fails the test if it throws none.
template <typename Call>
std::string error_of(Call call) {
    try {
        call();
    } catch (const Error & e) {
        return e.what();
    }
    ADD_FAILURE() << "expected an Error";
    return {};
}

}  // namespace kvsieve::test
