// SPDX-License-Identifier: MIT
#include <algorithm>

#include "kvsieve/error.h"
#include "policy/allocator.h"
#include "policy/budget.h"

namespace kvsieve {
namespace {

class ProfileAllocator final : public Allocator {
  public:
    explicit ProfileAllocator(std::vector<double> rho) : rho_(std::move(rho)) {}

    void check(const PromptShape & prompt) const override {
        if (rho_.size() != static_cast<size_t>(prompt.n_layer)) {
            throw Error(ErrorCode::bad_input, "the profile has " + std::to_string(rho_.size()) + " layers; expected " +
                                                  std::to_string(prompt.n_layer) + ", as the prompt's model has");
        }
    }

    bool evicts_while_decoding() const override { return true; }
    bool layerwise() const override { return true; }

    LayerBudget allocate_layer(const PromptShape & /*prompt*/, const Field & field, int32_t il,
                               const LayerScore & /*score*/) const override {
        return {{field.n_rows - forget(field, il)}};
    }

    Allocation allocate(const PromptShape & prompt, const Field & field,
                        std::span<const LayerScore> scores) const override {
        Allocation out = Allocator::allocate(prompt, field, scores);
        std::vector<int32_t> all;
        all.reserve(static_cast<size_t>(prompt.n_layer));
        for (int32_t il = 0; il < prompt.n_layer; ++il) {
            all.push_back(static_cast<int32_t>(forget(field, il)));
        }
        if (field.scope != Scope::visual && std::any_of(all.begin(), all.end(), [](int32_t f) { return f > 0; })) {
            out.rho = rho_;
        }
        out.extra["forget"] = std::move(all);
        return out;
    }

  private:
    int64_t forget(const Field & field, int32_t il) const {
        return round_half_even(rho_[static_cast<size_t>(il)] * static_cast<double>(field.n_rows));
    }

    std::vector<double> rho_;  // [L], forgotten fraction
};

}  // namespace

std::unique_ptr<Allocator> profile_allocator(const Profile & profile) {
    return std::make_unique<ProfileAllocator>(profile.forget);
}

}  // namespace kvsieve
