// SPDX-License-Identifier: MIT
#include "policy/allocator.h"

#include "kvsieve/error.h"
#include "policy/budget.h"

namespace kvsieve {

LayerBudget Allocator::allocate_layer(const PromptShape & /*prompt*/, int32_t il, const LayerScore & /*score*/) const {
    throw Error(ErrorCode::invalid_argument,
                "layer " + std::to_string(il) +
                    " cannot be planned alone: the method's budgets need the scores of all "
                    "layers");
}

Allocation Allocator::allocate(const PromptShape & prompt, std::span<const LayerScore> scores) const {
    Allocation out;
    for (int32_t il = 0; il < prompt.n_layer; ++il) {
        out.layers.push_back(allocate_layer(prompt, il, scores[static_cast<size_t>(il)]));
    }
    return out;
}

double layer_stat(const LayerScore & score, const std::string & name) {
    const auto found = score.stats.find(name);
    if (found == score.stats.end() || !std::holds_alternative<double>(found->second)) {
        throw Error(ErrorCode::invalid_argument, "the budgets need each layer's " + name + ", which the scores lack");
    }
    return std::get<double>(found->second);
}

namespace {

class FullAllocator final : public Allocator {
  public:
    bool layerwise() const override { return true; }
    LayerBudget allocate_layer(const PromptShape & prompt, int32_t /*il*/,
                               const LayerScore & /*score*/) const override {
        return {{prompt.n_tokens}};
    }
};

class UniformAllocator final : public Allocator {
  public:
    explicit UniformAllocator(double keep) : keep_(keep) {}
    bool layerwise() const override { return true; }
    LayerBudget allocate_layer(const PromptShape & prompt, int32_t /*il*/,
                               const LayerScore & /*score*/) const override {
        return {{rows_of_keep(prompt.n_tokens, keep_)}};
    }

  private:
    double keep_;
};

}  // namespace

std::unique_ptr<Allocator> full_allocator() {
    return std::make_unique<FullAllocator>();
}
std::unique_ptr<Allocator> uniform_allocator(double keep) {
    return std::make_unique<UniformAllocator>(keep);
}

}  // namespace kvsieve
