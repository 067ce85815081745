// SPDX-License-Identifier: MIT
// Choosing the next token from logits, with libllama's samplers.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "text/text_model.h"

struct llama_sampler;

namespace kvsieve {

struct SamplerOptions {
    float temp = 0.0F;    ///< 0 = greedy: the highest logit (that the grammar allows)
    int32_t top_k = 40;   ///< 0 = off
    float top_p = 0.95F;  ///< 1 = off
    float min_p = 0.05F;  ///< 0 = off
    uint32_t seed = 0;
    std::string grammar;  ///< GBNF with a rule `root`; empty = none
};

/// State of one answer: random generator and grammar. In llama.cpp's order: grammar, top_k, top_p, min_p, temp,
/// draw. Not thread-safe. The TextModel must outlive it.
class Sampler {
  public:
    /// Throws Error{invalid_argument} for options out of range and for a grammar that cannot be parsed.
    Sampler(const TextModel & text, const SamplerOptions & options);
    ~Sampler();
    Sampler(Sampler &&) noexcept;
    Sampler & operator=(Sampler &&) noexcept;

    /// logits [n_vocab]; they are not changed. Throws Error{runtime} if no token can be drawn (NaN logits, or a
    /// grammar that nothing in the vocabulary can continue).
    [[nodiscard]] int32_t sample(std::span<const float> logits);
    /// Advances the grammar by a token that was taken. Throws Error{runtime} if the grammar does not allow it.
    void accept(int32_t token);
    /// Back to the start of an answer: same seed, same grammar.
    void reset();

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace kvsieve
