// SPDX-License-Identifier: MIT
// Prompts of any size for property tests: what a method may ask for is made up when it asks, not stored as attention.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "kvsieve/policy.h"

namespace kvsieve::test {

/// What the observed numbers look like. All are finite; attention is never negative.
enum class Numbers { spread, ties, constant, zero, huge };
inline constexpr int kNumbers = 5;

/// A stream of numbers from a hash (SplitMix64).
class NumberStream {
  public:
    NumberStream(Numbers kind, uint64_t seed) : kind_(kind), state_(seed) {}

    /// In [0, 1], or for `huge` up to 3e38.
    float next() {
        const auto x = static_cast<float>(bits() >> 40U) * 0x1p-24F;
        switch (kind_) {
            case Numbers::spread:
                return x * x * x;
            case Numbers::ties:
                return std::floor(x * 4) / 4;
            case Numbers::constant:
                return 0.25F;
            case Numbers::zero:
                return 0;
            case Numbers::huge:
                return x * 3e38F;
        }
        return 0;
    }
    /// The same with a sign.
    float next_signed() { return (bits() & 1U) != 0 ? -next() : next(); }

  private:
    uint64_t bits() {
        uint64_t x = state_ += 0x9e3779b97f4a7c15ULL;
        x = (x ^ (x >> 30U)) * 0xbf58476d1ce4e5b9ULL;
        x = (x ^ (x >> 27U)) * 0x94d049bb133111ebULL;
        return x ^ (x >> 31U);
    }

    Numbers kind_;
    uint64_t state_;
};

class GeneratedLayer final : public LayerObservation {
  public:
    GeneratedLayer(const PromptShape & prompt, const Traits & wanted, Numbers kind, uint64_t seed)
        : prompt_(prompt), kind_(kind), seed_(seed * 1000003U) {
        NumberStream numbers(kind, seed_);
        const auto n_tokens = static_cast<size_t>(prompt.n_tokens), n_head = static_cast<size_t>(prompt.n_head);
        const auto d = static_cast<size_t>(prompt.head_dim), n_kv = static_cast<size_t>(prompt.n_head_kv) * n_tokens;
        const auto fill = [&](bool asked, size_t n, bool has_sign, std::vector<float> & out) {
            for (size_t i = 0; asked && i < n; ++i) {
                out.push_back(has_sign ? numbers.next_signed() : numbers.next());
            }
            return std::span<const float>(out);
        };
        importance = fill(wanted.importance, n_tokens, false, importance_);
        colsum = fill(wanted.colsum, n_head * n_tokens, false, colsum_);
        keys = fill(wanted.keys, n_kv * d, true, keys_);
        values = fill(wanted.values, n_kv * d, true, values_);
        query_mean = fill(wanted.query_stats, n_head * d, true, mean_);
        query_cov = fill(wanted.query_stats, n_head * d * d, true, cov_);
        probe_mean = fill(wanted.probes, n_head * n_tokens, false, probe_mean_);
        probe_square = fill(wanted.probes, n_head * n_tokens, false, probe_square_);
        output_norm = fill(wanted.probes, n_head * n_tokens, false, output_norm_);
        if (wanted.rows != RowsWanted::none) {
            for (int32_t k = 0; k < prompt.n_tokens; ++k) {
                positions_.push_back(k);
            }
            row_positions = positions_;
        }
    }

    void rows(std::span<const int32_t> positions, std::vector<float> & out) const override {
        const auto n_tokens = static_cast<size_t>(prompt_.n_tokens);
        out.assign(static_cast<size_t>(prompt_.n_head) * positions.size() * n_tokens, 0.0F);
        float * row = out.data();
        for (int32_t h = 0; h < prompt_.n_head; ++h) {
            for (const int32_t q : positions) {
                NumberStream numbers(kind_, seed_ + static_cast<uint64_t>(h) * 7919U + static_cast<uint64_t>(q));
                for (int32_t k = 0; k <= q; ++k) {
                    row[k] = numbers.next();
                }
                row += n_tokens;
            }
        }
    }

  private:
    PromptShape prompt_;
    Numbers kind_;
    uint64_t seed_;
    std::vector<float> importance_, colsum_, keys_, values_, mean_, cov_, probe_mean_, probe_square_, output_norm_;
    std::vector<int32_t> positions_;
};

/// A whole number in [1, most], its logarithm evenly spread.
inline int32_t log_uniform(std::mt19937 & random, int32_t most) {
    std::uniform_real_distribution<double> exponent(0.0, std::log(most + 1.0));
    return std::min(most, static_cast<int32_t>(std::exp(exponent(random))));
}

/// 1 to 32 layers, 1 to 8 KV heads, 1 to 65536 tokens, so that L x H x T stays below `max_size`; no visual token,
/// nothing else, or images with text around them.
inline PromptShape generated_shape(std::mt19937 & random, int64_t max_size) {
    PromptShape p;
    p.n_layer = log_uniform(random, 32);
    p.n_head_kv = log_uniform(random, 8);
    p.n_head = p.n_head_kv * log_uniform(random, 4);
    p.head_dim = 2 * log_uniform(random, 4);
    p.n_tokens = log_uniform(random, 65536);
    while (int64_t{p.n_layer} * p.n_head * p.n_tokens > max_size) {
        if (p.n_layer > 1) {
            p.n_layer = (p.n_layer + 1) / 2;
        } else if (p.n_head > 1) {
            p.n_head = p.n_head_kv = 1;
        } else {
            p.n_tokens /= 2;
        }
    }
    for (int32_t i = 0; i < p.head_dim / 2; ++i) {
        p.rope.freqs.push_back(1.0F / static_cast<float>(1 + i * 10));
    }
    p.rope.interleaved = random() % 2 == 0;
    const auto n = static_cast<size_t>(p.n_tokens);
    switch (random() % 6) {
        case 0:
            break;  // text only, no mask
        case 1:
            p.visual_mask.assign(n, 0);
            break;
        case 2:
            p.visual_mask.assign(n, 1);
            break;
        default: {
            const size_t n_after = std::min<size_t>(n, static_cast<size_t>(log_uniform(random, 24)));
            for (size_t k = 0; k < n; ++k) {
                p.visual_mask.push_back(k + n_after >= n || random() % 4 == 0 ? 0 : 1);
            }
        }
    }
    return p;
}

}  // namespace kvsieve::test
