// SPDX-License-Identifier: MIT
// A method of your own: attention sinks and recent tokens, the same in every layer (the idea of StreamingLLM,
// arXiv 2309.17453). A method says what it observes, scores a layer, and makes the plan.
#include <algorithm>
#include <cmath>
#include <iostream>
#include <numeric>
#include <vector>

#include "kvsieve/error.h"
#include "kvsieve/policy.h"

namespace {

class SinkAndRecent : public kvsieve::Method {
  public:
    explicit SinkAndRecent(double keep) : keep_(keep) {
        traits_.layerwise = true;  // a layer's plan needs no other layer: it can be compacted at once
    }

    [[nodiscard]] const kvsieve::Traits & traits() const override { return traits_; }

    void check(const kvsieve::PromptShape & prompt) const override {
        if (budget(prompt) < kSinks) {
            throw kvsieve::Error(kvsieve::ErrorCode::invalid_argument,
                                 "sink_and_recent keeps at least " + std::to_string(kSinks) + " tokens, but " +
                                     std::to_string(budget(prompt)) + " are asked for");
        }
    }

    // Nothing is observed, so nothing is scored: position decides.
    [[nodiscard]] kvsieve::LayerScore score(const kvsieve::PromptShape &, int32_t,
                                            const kvsieve::LayerObservation &) const override {
        return {};
    }

    [[nodiscard]] kvsieve::LayerPlan plan_layer(const kvsieve::PromptShape & prompt, int32_t,
                                                const kvsieve::LayerScore &) const override {
        std::vector<int32_t> kept(static_cast<size_t>(budget(prompt)));
        std::iota(kept.begin(), kept.begin() + kSinks, 0);
        std::iota(kept.begin() + kSinks, kept.end(), prompt.n_tokens - budget(prompt) + kSinks);
        return {{kept}};
    }

    [[nodiscard]] kvsieve::Plan plan(const kvsieve::PromptShape & prompt,
                                     std::span<const kvsieve::LayerScore> scores) const override {
        kvsieve::Plan plan;
        for (size_t il = 0; il < scores.size(); il++) {
            plan.layers.push_back(plan_layer(prompt, static_cast<int32_t>(il), scores[il]));
        }
        plan.keeps_everything = budget(prompt) == prompt.n_tokens;
        return plan;
    }

  private:
    static constexpr int32_t kSinks = 4;

    [[nodiscard]] int32_t budget(const kvsieve::PromptShape & prompt) const {
        return std::min(prompt.n_tokens, static_cast<int32_t>(std::lround(keep_ * prompt.n_tokens)));
    }

    double keep_;
    kvsieve::Traits traits_;
};

// What a method with no observation gets to see.
class NoObservation : public kvsieve::LayerObservation {
  public:
    void rows(std::span<const int32_t>, std::vector<float> & out) const override { out.clear(); }
};

}  // namespace

int main() {
    try {
        kvsieve::PromptShape prompt;
        prompt.n_layer = 2;
        prompt.n_head = 4;
        prompt.n_head_kv = 2;
        prompt.n_tokens = 40;

        const SinkAndRecent method(0.25);
        method.check(prompt);
        std::vector<kvsieve::LayerScore> scores;
        for (int32_t il = 0; il < prompt.n_layer; il++) {
            scores.push_back(method.score(prompt, il, NoObservation()));
        }
        for (const auto & layer : method.plan(prompt, scores).layers) {
            for (const int32_t position : layer.of_head(0)) {
                std::cout << position << ' ';
            }
            std::cout << '\n';
        }
        return 0;
    } catch (const kvsieve::Error & error) {
        std::cerr << error.what() << '\n';
        return kvsieve::exit_code(error.code());
    }
}
