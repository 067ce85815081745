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

namespace kvsieve {

/// Rows that a layer keeps, protected ones included: one number for all KV heads or one per head.
/// It may lie below the number of protected rows; the selection keeps these all the same.
struct LayerBudget {
    std::vector<int64_t> n_kept;  ///< [1 or G]
};

struct Allocation {
    std::vector<LayerBudget> layers;         ///< [L]
    std::vector<double> rho;                 ///< [L] DecodeRule::rho, or empty: no eviction while decoding
    std::map<std::string, PlanExtra> extra;  ///< what the plan states beside the positions
};

class Allocator {
  public:
    virtual ~Allocator() = default;
    /// Throws Error where budgets are not defined for such a prompt.
    virtual void check(const PromptShape & /*prompt*/) const {}
    [[nodiscard]] virtual bool evicts_while_decoding() const { return false; }
    /// True where allocate_layer() gives what allocate() gives.
    [[nodiscard]] virtual bool layerwise() const { return false; }
    /// Budget of one layer from that layer's scores; throws where layerwise() is false.
    [[nodiscard]] virtual LayerBudget allocate_layer(const PromptShape & prompt, int32_t il,
                                                     const LayerScore & score) const;
    /// Budgets of all layers. By default layer by layer.
    [[nodiscard]] virtual Allocation allocate(const PromptShape & prompt, std::span<const LayerScore> scores) const;
};

/// A number that the scorer left in the layer's stats; Error where it did not.
[[nodiscard]] double layer_stat(const LayerScore & score, const std::string & name);

/// Every layer keeps everything.
[[nodiscard]] std::unique_ptr<Allocator> full_allocator();
/// Every layer keeps n(T) rows.
[[nodiscard]] std::unique_ptr<Allocator> uniform_allocator(double keep);
/// PrefixKV's search for one threshold over all layers' cumulative scores (METHODS 1.2).
[[nodiscard]] std::unique_ptr<Allocator> prefix_search_allocator(double keep);
/// PrefixKV's offline configuration: f_l = round_half_even(rho_l * T) (METHODS 1.4).
[[nodiscard]] std::unique_ptr<Allocator> profile_allocator(const Profile & profile);

/// What AirCache weighs layers by.
enum class LayerWeights { both, strength, skew, uniform };
/// AirCache's visual budgets from the stats `strength` and `skew` (METHODS 9), exact in total.
[[nodiscard]] std::unique_ptr<Allocator> visual_share_allocator(double keep, LayerWeights weights);

}  // namespace kvsieve
