// SPDX-License-Identifier: MIT
// Plans from observations alone: no model, no ggml. Two layers with different attention get different budgets from
// PrefixKV at the same overall ratio.
#include <iostream>
#include <vector>

#include "kvsieve/error.h"
#include "kvsieve/policy.h"

namespace {

// A layer as PrefixKV sees it: how much attention each prompt token received.
class ImportanceOnly : public kvsieve::LayerObservation {
  public:
    explicit ImportanceOnly(const std::vector<float> & sums) { importance = sums; }
    void rows(std::span<const int32_t>, std::vector<float> & out) const override { out.clear(); }
};

}  // namespace

int main() {
    try {
        kvsieve::PromptShape prompt;
        prompt.n_layer = 2;
        prompt.n_head = 1;
        prompt.n_head_kv = 1;
        prompt.n_tokens = 100;

        // [n_layer][n_tokens]: the first layer looks at few tokens, the second one at all alike
        std::vector<std::vector<float>> sums(2, std::vector<float>(100, 1.0F));
        for (size_t token = 0; token < 100; token++) {
            sums[0][token] = token % 10 == 0 ? 10.0F : 0.01F;
        }

        kvsieve::MethodOptions options;
        options.keep = 0.4;
        const auto method = kvsieve::make_method("prefixkv", options);
        method->check(prompt);

        std::vector<kvsieve::LayerScore> scores;
        for (int32_t il = 0; il < prompt.n_layer; il++) {
            scores.push_back(method->score(prompt, il, ImportanceOnly(sums[static_cast<size_t>(il)])));
        }
        const kvsieve::Plan plan = method->plan(prompt, scores);
        for (size_t il = 0; il < plan.layers.size(); il++) {
            std::cout << "layer " << il << " keeps " << plan.layers[il].of_head(0).size() << " of " << prompt.n_tokens
                      << " tokens\n";
        }
        return 0;
    } catch (const kvsieve::Error & error) {
        std::cerr << error.what() << '\n';
        return kvsieve::exit_code(error.code());
    }
}
