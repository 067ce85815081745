// SPDX-License-Identifier: MIT
// Score: how much each prompt token of a layer matters. One of the three parts of a method (scorer, allocator,
// scope of the selection); any scorer goes with any allocator whose demands on scores it meets.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "kvsieve/policy.h"
#include "policy/select.h"

namespace kvsieve {

class Scorer {
  public:
    virtual ~Scorer() = default;
    /// Sets the fields of the traits that say what is observed (importance .. n_sink).
    virtual void observe(Traits & traits) const = 0;
    /// Throws Error where the scores are not defined for such a prompt, beyond what the traits imply.
    virtual void check(const PromptShape & /*prompt*/) const {}
    /// Rows that get the highest scores of all, whatever is observed.
    [[nodiscard]] virtual Protected protects() const { return {}; }
    /// One set of scores for all KV heads, or one per KV head.
    [[nodiscard]] virtual LayerScore score(const PromptShape & prompt, int32_t il,
                                           const LayerObservation & obs) const = 0;
};

/// The observation's array, or Error{bad_input} naming it where it has another size than `n_expected`.
[[nodiscard]] std::span<const float> observed(std::span<const float> array, size_t n_expected, std::string_view name,
                                              int32_t il);

/// Random numbers in [0, 1), a function of (seed, layer, position) alone.
[[nodiscard]] std::unique_ptr<Scorer> random_scorer(uint64_t seed);
/// I[k], the column sums of softmax attention (METHODS 1.1), as observed.
[[nodiscard]] std::unique_ptr<Scorer> importance_scorer();
/// The same score, 0, for every token: by the tie rule later positions survive.
[[nodiscard]] std::unique_ptr<Scorer> constant_scorer();

}  // namespace kvsieve
