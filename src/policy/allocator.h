// SPDX-License-Identifier: MIT
// Allocate: how many rows each layer (or KV head) keeps. Counts are made by budget.h only.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kvsieve/policy.h"
#include "policy/select.h"

namespace kvsieve {

struct Allocation {
    std::vector<LayerBudget> layers;         ///< [L]
    std::vector<double> rho;                 ///< [L] DecodeRule::rho, or empty: no eviction while decoding
    std::map<std::string, PlanExtra> extra;  ///< what the plan states beside the positions
};

/// All counts are of `field`'s counted rows: N of them, among them those that are protected.
class Allocator {
  public:
    virtual ~Allocator() = default;
    /// Adds to the traits what add_stats() reads.
    virtual void observe(Traits & /*traits*/) const {}
    /// Throws Error where budgets are not defined for such a prompt.
    virtual void check(const PromptShape & /*prompt*/) const {}
    [[nodiscard]] virtual bool evicts_while_decoding() const { return false; }
    /// True where allocate_layer() gives what allocate() gives.
    [[nodiscard]] virtual bool layerwise() const { return false; }
    /// Leaves in `score.stats` what the budgets need of this layer, unless the scorer has left it. The scores are still
    /// those of the scorer, not yet averaged over KV heads.
    virtual void add_stats(const PromptShape & /*prompt*/, const Field & /*field*/, int32_t /*il*/,
                           const LayerObservation & /*obs*/, LayerScore & /*score*/) const {}
    /// Budget of one layer from that layer's scores; throws where layerwise() is false.
    [[nodiscard]] virtual LayerBudget allocate_layer(const PromptShape & prompt, const Field & field, int32_t il,
                                                     const LayerScore & score) const;
    /// Budgets of all layers. By default layer by layer.
    [[nodiscard]] virtual Allocation allocate(const PromptShape & prompt, const Field & field,
                                              std::span<const LayerScore> scores) const;
};

/// A number that the layer's stats hold; Error where they do not.
[[nodiscard]] double layer_stat(const LayerScore & score, const std::string & name);
/// The same of all layers. [L]
[[nodiscard]] std::vector<double> layer_stats(std::span<const LayerScore> scores, const std::string & name);
/// Numbers of sets of scores: 1, or G.
[[nodiscard]] size_t n_score_sets(const PromptShape & prompt, const LayerScore & score);
/// Mean over the sets of the scores that weigh, in the order of their positions. [number of 1 in field.weighs]
[[nodiscard]] std::vector<double> weighing_scores(const PromptShape & prompt, const Field & field,
                                                  const LayerScore & score);

/// Every layer keeps n(N) rows, but the first `n_whole` layers keep all.
[[nodiscard]] std::unique_ptr<Allocator> uniform_allocator(double keep, int32_t n_whole = 0);

/// The forgotten fraction of a keep as the published codes write it.
enum class ForgetFormula {
    part,  ///< f = trunc(T * (1 - keep)), METHODS 1.7
    rest,  ///< f = trunc(T - T * keep), METHODS 2
};
/// f rows less in every layer, and PrefixKV's eviction while decoding with rho = f / T.
[[nodiscard]] std::unique_ptr<Allocator> forget_allocator(double keep, ForgetFormula formula);

/// PrefixKV's search for one threshold over all layers' cumulative scores (METHODS 1.2).
[[nodiscard]] std::unique_ptr<Allocator> prefix_search_allocator(double keep);
/// PrefixKV's offline configuration: f_l = round_half_even(rho_l * T) (METHODS 1.4).
[[nodiscard]] std::unique_ptr<Allocator> profile_allocator(const Profile & profile);

}  // namespace kvsieve
