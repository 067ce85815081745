// SPDX-License-Identifier: MIT
// The same number of rows in every layer.
#include <algorithm>

#include "policy/allocator.h"
#include "policy/budget.h"

namespace kvsieve {
namespace {

class UniformAllocator final : public Allocator {
  public:
    UniformAllocator(double keep, int32_t n_whole) : keep_(keep), n_whole_(n_whole) {}

    bool layerwise() const override { return true; }

    LayerBudget allocate_layer(const PromptShape & /*prompt*/, const Field & field, int32_t il,
                               const LayerScore & /*score*/) const override {
        return {{il < n_whole_ ? field.n_rows : rows_of_keep(field.n_rows, keep_)}};
    }

    Allocation allocate(const PromptShape & prompt, const Field & field,
                        std::span<const LayerScore> scores) const override {
        Allocation out = Allocator::allocate(prompt, field, scores);
        if (field.scope == Scope::visual) {
            std::vector<int32_t> n_visual;
            for (const LayerBudget & layer : out.layers) {
                n_visual.push_back(static_cast<int32_t>(layer.n_kept[0]));
            }
            out.extra["n_visual"] = std::move(n_visual);
        }
        return out;
    }

  private:
    double keep_;
    int32_t n_whole_;
};

class ForgetAllocator final : public Allocator {
  public:
    ForgetAllocator(double keep, ForgetFormula formula) : keep_(keep), formula_(formula) {}

    bool layerwise() const override { return true; }
    bool evicts_while_decoding() const override { return true; }

    LayerBudget allocate_layer(const PromptShape & /*prompt*/, const Field & field, int32_t /*il*/,
                               const LayerScore & /*score*/) const override {
        return {{field.n_rows - forget(field)}};
    }

    Allocation allocate(const PromptShape & prompt, const Field & field,
                        std::span<const LayerScore> scores) const override {
        Allocation out = Allocator::allocate(prompt, field, scores);
        const int64_t f = forget(field);
        if (f > 0 && field.scope != Scope::visual) {
            out.rho.assign(scores.size(), static_cast<double>(f) / static_cast<double>(field.n_rows));
        }
        out.extra["forget"] = std::vector<int32_t>(scores.size(), static_cast<int32_t>(f));
        return out;
    }

  private:
    int64_t forget(const Field & field) const {
        const auto n = static_cast<double>(field.n_rows);
        return trunc_guarded(formula_ == ForgetFormula::part ? n * (1 - keep_) : n - n * keep_);
    }

    double keep_;
    ForgetFormula formula_;
};

}  // namespace

std::unique_ptr<Allocator> uniform_allocator(double keep, int32_t n_whole) {
    return std::make_unique<UniformAllocator>(keep, n_whole);
}
std::unique_ptr<Allocator> forget_allocator(double keep, ForgetFormula formula) {
    return std::make_unique<ForgetAllocator>(keep, formula);
}

}  // namespace kvsieve
