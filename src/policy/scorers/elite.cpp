// SPDX-License-Identifier: MIT
// AirCache's elite observation window (arXiv 2503.23956): which visual tokens the key text tokens look at.
#include <algorithm>

#include "policy/methods/aircache.h"
#include "policy/prompt.h"

namespace kvsieve {
namespace {

class EliteScorer final : public Scorer {
  public:
    EliteScorer(double alpha, EliteQueries queries, size_t max_block_floats)
        : alpha_(alpha), queries_(queries), max_block_floats_(max_block_floats) {}

    void observe(Traits & traits) const override {
        observe_text_after_visual(traits);
        traits.modality = true;
    }

    LayerScore score(const PromptShape & prompt, int32_t il, const LayerObservation & obs) const override {
        const std::vector<int32_t> visual = visual_positions(prompt);
        const std::vector<int32_t> candidate = positions_after_visual(prompt);
        const std::vector<int32_t> elite = elite_queries(prompt, il, obs, candidate);

        // V u E, ascending: all visual positions lie before all candidates.
        std::vector<int32_t> keys = visual;
        keys.insert(keys.end(), elite.begin(), elite.end());

        // I[k] = mean over q in E, h of A[h,q,k] / sum over V u E of A[h,q,.]
        std::vector<double> visual_score(visual.size(), 0.0);
        const auto n_tokens = static_cast<size_t>(prompt.n_tokens);
        const auto n_head = static_cast<size_t>(prompt.n_head);
        for_each_row(
            prompt, il, obs, elite,
            [&](size_t, std::span<const float> row) { add_row(row, keys, visual, visual_score); }, max_block_floats_);
        LayerScore out;
        out.score.assign(n_tokens, 0.0);
        for (size_t i = 0; i < visual.size(); ++i) {
            visual_score[i] /= static_cast<double>(elite.size() * n_head);
            out.score[static_cast<size_t>(visual[i])] = visual_score[i];
        }
        out.stats = {{"elite", elite}};
        return out;
    }

  private:
    /// e[j] from the last row, restricted to the candidates; E = {t_j : e[j] >= alpha * max e}.
    std::vector<int32_t> elite_queries(const PromptShape & prompt, int32_t il, const LayerObservation & obs,
                                       const std::vector<int32_t> & candidate) const {
        if (queries_ == EliteQueries::all) {
            return candidate;
        }
        const std::span<const int32_t> last = std::span(candidate).last(1);
        if (queries_ == EliteQueries::last) {
            return {last.begin(), last.end()};
        }
        std::vector<double> e(candidate.size(), 0.0);
        for_each_row(prompt, il, obs, last,
                     [&](size_t, std::span<const float> row) { add_row(row, candidate, candidate, e); });
        for (double & x : e) {
            x /= static_cast<double>(prompt.n_head);
        }
        const double limit = alpha_ * *std::max_element(e.begin(), e.end());
        std::vector<int32_t> elite;
        for (size_t j = 0; j < e.size(); ++j) {
            if (e[j] >= limit) {
                elite.push_back(candidate[j]);
            }
        }
        return elite;
    }

    /// acc[i] += row[targets[i]] / (sum over `keys` of row), nothing where that sum is 0.
    static void add_row(std::span<const float> row, const std::vector<int32_t> & keys,
                        const std::vector<int32_t> & targets, std::vector<double> & acc) {
        double sum = 0;
        for (const int32_t k : keys) {
            sum += static_cast<double>(row[static_cast<size_t>(k)]);
        }
        if (!(sum > 0)) {
            return;
        }
        for (size_t i = 0; i < targets.size(); ++i) {
            acc[i] += static_cast<double>(row[static_cast<size_t>(targets[i])]) / sum;
        }
    }

    double alpha_;
    EliteQueries queries_;
    size_t max_block_floats_;
};

}  // namespace

std::unique_ptr<Scorer> elite_scorer(double alpha, EliteQueries queries, size_t max_block_floats) {
    return std::make_unique<EliteScorer>(alpha, queries, max_block_floats);
}

}  // namespace kvsieve
