// SPDX-License-Identifier: MIT
// AirCache's elite observation window (arXiv 2503.23956): which visual tokens the key text tokens look at.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "kvsieve/error.h"
#include "policy/prompt.h"
#include "policy/scorer.h"

namespace kvsieve {
namespace {

/// Strength and skewness of a layer's visual scores.
struct Shape {
    double strength = 0;
    double skew = 0;
};

Shape shape_of(std::span<const double> scores) {
    const auto n = static_cast<double>(scores.size());
    Shape out;
    out.strength = std::accumulate(scores.begin(), scores.end(), 0.0);
    const auto [low, high] = std::minmax_element(scores.begin(), scores.end());
    if (scores.size() < 3 || *low == *high) {  // equal scores: the computed mean may miss them by a rounding error
        return out;
    }
    const double mu = out.strength / n;
    double squares = 0;
    for (const double x : scores) {
        squares += (x - mu) * (x - mu);
    }
    const double sd = std::sqrt(squares / (n - 1));
    if (!(sd > 0)) {
        return out;
    }
    double cubes = 0;
    for (const double x : scores) {
        const double z = (x - mu) / sd;
        cubes += z * z * z;
    }
    out.skew = n / ((n - 1) * (n - 2)) * cubes;
    return out;
}

class EliteScorer final : public Scorer {
  public:
    EliteScorer(double alpha, EliteQueries queries, size_t max_block_floats)
        : alpha_(alpha), queries_(queries), max_block_floats_(max_block_floats) {}

    void observe(Traits & traits) const override { traits.rows = RowsWanted::text_after_visual; }

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
        const size_t block = std::max<size_t>(1, max_block_floats_ / (n_head * n_tokens));
        std::vector<float> rows;
        for (size_t first = 0; first < elite.size(); first += block) {
            const size_t n = std::min(block, elite.size() - first);
            read_rows(prompt, il, obs, std::span(elite).subspan(first, n), rows);
            for (size_t q = 0; q < n; ++q) {
                for (size_t h = 0; h < n_head; ++h) {
                    add_row(std::span(rows).subspan((h * n + q) * n_tokens, n_tokens), keys, visual, visual_score);
                }
            }
        }
        LayerScore out;
        out.score.assign(n_tokens, 0.0);
        for (size_t i = 0; i < visual.size(); ++i) {
            visual_score[i] /= static_cast<double>(elite.size() * n_head);
            out.score[static_cast<size_t>(visual[i])] = visual_score[i];
        }
        const Shape shape = shape_of(visual_score);
        out.stats = {{"elite", elite}, {"strength", shape.strength}, {"skew", shape.skew}};
        return out;
    }

  private:
    /// Rows [H, n, T] of the asked queries.
    static void read_rows(const PromptShape & prompt, int32_t il, const LayerObservation & obs,
                          std::span<const int32_t> positions, std::vector<float> & out) {
        if (!std::includes(obs.row_positions.begin(), obs.row_positions.end(), positions.begin(), positions.end())) {
            throw Error(ErrorCode::bad_input,
                        "the observation of layer " + std::to_string(il) + " has no attention row of position " +
                            std::to_string(positions.front()) + " in array rows; the method needs the rows of all " +
                            "text behind the last visual token");
        }
        obs.rows(positions, out);
        const auto expected =
            static_cast<size_t>(prompt.n_head) * positions.size() * static_cast<size_t>(prompt.n_tokens);
        (void)observed(out, expected, "rows", il);
    }

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
        std::vector<float> rows;
        read_rows(prompt, il, obs, last, rows);
        std::vector<double> e(candidate.size(), 0.0);
        const auto n_tokens = static_cast<size_t>(prompt.n_tokens);
        for (size_t h = 0; h < static_cast<size_t>(prompt.n_head); ++h) {
            add_row(std::span<const float>(rows).subspan(h * n_tokens, n_tokens), candidate, candidate, e);
        }
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
