// SPDX-License-Identifier: MIT
// PyramidKV (arXiv 2406.02069) as KVPress has it: SnapKV's scores, more rows in lower layers than in higher ones.
#include "policy/budget.h"
#include "policy/parts.h"

namespace kvsieve {
namespace {

class PyramidAllocator final : public Allocator {
  public:
    PyramidAllocator(double keep, double beta) : keep_(keep), beta_(beta) {}

    bool layerwise() const override { return true; }

    LayerBudget allocate_layer(const PromptShape & prompt, const Field & field, int32_t il,
                               const LayerScore & /*score*/) const override {
        const auto n = static_cast<double>(field.n_rows), w = static_cast<double>(field.n_protected);
        const double c = (w + n * keep_) - w;  // the mean over the layers
        double least = c / beta_, most = 2 * c - least;
        if (most >= n - w) {
            most = n - w;
            least = 2 * c - most;
        }
        // Short prompts and small keeps fail this often; the layers are then equal.
        const bool pyramid = n >= most && most >= least && least >= w && prompt.n_layer > 1;
        if (!pyramid) {
            return {{round_half_even(n * keep_)}};
        }
        return {{round_half_even(most - il * ((most - least) / (prompt.n_layer - 1)))}};
    }

  private:
    double keep_, beta_;
};

}  // namespace

MethodFile pyramidkv_file() {
    return {.method = MethodRow{.name = "pyramidkv",
                                .paper = "arXiv 2406.02069",
                                .summary = "SnapKV with budgets that shrink linearly from the first layer to the last.",
                                .scorer = "snapkv",
                                .allocator = "pyramidkv"},
            .allocator = AllocatorPart{
                .name = "pyramidkv",
                .summary = "Budgets that shrink linearly from the first layer to the last.",
                .params =
                    {{.name = "beta", .help = "mean budget over the last layer's", .def = 20.0, .min = 1, .max = 1000}},
                .make = [](const BoundParams & p) -> std::unique_ptr<Allocator> {
                    return std::make_unique<PyramidAllocator>(p.keep(), p.number("beta"));
                }}};
}

}  // namespace kvsieve
