// SPDX-License-Identifier: MIT
// Expected attention (arXiv 2510.00636): the attention that future queries will pay, if they are distributed like the
// prompt's and rotated to the positions that come.
#include <algorithm>
#include <cmath>

#include "kvsieve/error.h"
#include "policy/parts.h"
#include "policy/rows.h"

namespace kvsieve {
namespace {

struct Settings {
    int32_t n_future = 512, n_sink = 4;
    bool covariance = true, vnorm = true;
    double epsilon = 0;
};

/// Mean [d] and covariance [d, d] of one head's future queries; the covariance may be empty.
struct QueryStats {
    std::vector<double> mean, cov;
};

/// The mean of the rotations to the next n_future positions; itself not a rotation.
class MeanRotation {
  public:
    MeanRotation(const PromptShape & prompt, int32_t n_future) : interleaved_(prompt.rope.interleaved) {
        const int32_t first = prompt.next_position < 0 ? prompt.n_tokens : prompt.next_position;
        for (const float freq : prompt.rope.freqs) {
            double c = 0, s = 0;
            for (int32_t p = first; p < first + n_future; ++p) {
                c += std::cos(p * static_cast<double>(freq));
                s += std::sin(p * static_cast<double>(freq));
            }
            cos_.push_back(c / n_future);
            sin_.push_back(s / n_future);
        }
    }

    /// Rotates the vector x[0], x[step], ..., x[(d-1) step].
    void apply(double * x, size_t step) const {
        const size_t m = cos_.size();
        for (size_t i = 0; i < m; ++i) {
            double & a = x[(interleaved_ ? 2 * i : i) * step];
            double & b = x[(interleaved_ ? 2 * i + 1 : i + m) * step];
            const double rotated = cos_[i] * a - sin_[i] * b;
            b = sin_[i] * a + cos_[i] * b;
            a = rotated;
        }
    }

    void apply(QueryStats & stats) const {
        const size_t d = stats.mean.size();
        apply(stats.mean.data(), 1);
        for (size_t i = 0; i < d && !stats.cov.empty(); ++i) {  // R C, column by column
            apply(stats.cov.data() + i, d);
        }
        for (size_t i = 0; i < d && !stats.cov.empty(); ++i) {  // (R C) R^T, row by row
            apply(stats.cov.data() + i * d, 1);
        }
    }

  private:
    bool interleaved_;
    std::vector<double> cos_, sin_;
};

/// Mean and covariance of the rows n_sink .. T-1 of `queries` [T, d].
QueryStats stats_of(std::span<const float> queries, size_t n_tokens, size_t d, size_t n_sink, bool covariance) {
    const auto n = static_cast<double>(n_tokens - n_sink);
    QueryStats out{.mean = std::vector<double>(d, 0.0), .cov = {}};
    for (size_t q = n_sink; q < n_tokens; ++q) {
        for (size_t i = 0; i < d; ++i) {
            out.mean[i] += static_cast<double>(queries[q * d + i]);
        }
    }
    for (double & x : out.mean) {
        x /= n;
    }
    if (covariance) {
        out.cov.assign(d * d, 0.0);
        std::vector<double> centred(d);
        for (size_t q = n_sink; q < n_tokens; ++q) {
            for (size_t i = 0; i < d; ++i) {
                centred[i] = static_cast<double>(queries[q * d + i]) - out.mean[i];
            }
            for (size_t i = 0; i < d; ++i) {
                for (size_t j = 0; j < d; ++j) {
                    out.cov[i * d + j] += centred[i] * centred[j];
                }
            }
        }
        for (double & x : out.cov) {
            x /= n;
        }
    }
    return out;
}

/// The quadratic form x^T C x for many x. Only the symmetric part of C matters, of which half is enough.
class QuadraticForm {
  public:
    explicit QuadraticForm(const std::vector<double> & cov, size_t d) : d_(d), half_(cov.empty() ? 0 : d * d, 0.0) {
        for (size_t i = 0; i < d && !cov.empty(); ++i) {
            half_[i * d + i] = cov[i * d + i];
            for (size_t j = 0; j < i; ++j) {
                half_[i * d + j] = cov[i * d + j] + cov[j * d + i];
            }
        }
    }

    /// `scratch` [d] is overwritten.
    [[nodiscard]] double operator()(std::span<const double> x, std::vector<double> & scratch) const {
        scratch.assign(d_, 0.0);
        for (size_t i = 0; i < d_; ++i) {
            const double * const row = half_.data() + i * d_;
            for (size_t j = 0; j <= i; ++j) {
                scratch[j] += row[j] * x[i];
            }
        }
        double sum = 0;
        for (size_t j = 0; j < d_; ++j) {
            sum += scratch[j] * x[j];
        }
        return sum;
    }

  private:
    size_t d_;
    std::vector<double> half_;  // [d, d], lower triangle
};

class ExpectedAttentionScorer final : public Scorer {
  public:
    explicit ExpectedAttentionScorer(const Settings & settings) : set_(settings) {}

    void observe(Traits & traits) const override {
        traits.keys = true;
        traits.values = traits.values || set_.vnorm;
        traits.query_stats = true;
        traits.n_sink = set_.n_sink;
    }
    Protected protects() const override { return {.first = set_.n_sink, .last = 0}; }

    void check(const PromptShape & prompt) const override {
        if (prompt.n_tokens <= set_.n_sink) {
            throw Error(ErrorCode::invalid_argument, "the prompt has " + std::to_string(prompt.n_tokens) +
                                                         " tokens; expected more than the " +
                                                         std::to_string(set_.n_sink) + " sinks of expected attention");
        }
    }

    LayerScore score(const PromptShape & prompt, int32_t il, const LayerObservation & obs) const override {
        const Sizes n(prompt, set_.n_sink);
        const auto keys = observed(obs.keys, n.group * n.tokens * n.d, "keys", il);
        if (set_.vnorm) {
            (void)observed(obs.values, n.group * n.tokens * n.d, "values", il);
        }
        check_rope(prompt, il);
        const MeanRotation rotation(prompt, set_.n_future);
        std::vector<double> scores(n.group * n.scored, 0.0);
        std::vector<double> wide(n.tokens * n.d);
        for (size_t g = 0; g < n.group; ++g) {
            const auto head_keys = keys.subspan(g * n.tokens * n.d, n.tokens * n.d);
            std::copy(head_keys.begin(), head_keys.end(), wide.begin());
            const auto mean = std::span(scores).subspan(g * n.scored, n.scored);
            for (size_t h = g * n.shared; h < (g + 1) * n.shared; ++h) {
                QueryStats stats = query_stats(prompt, il, obs, h);
                rotation.apply(stats);
                add_attention(stats, wide, n, mean);
            }
            for (double & s : mean) {
                s /= static_cast<double>(n.shared);
            }
            if (set_.vnorm) {
                weigh_by_values(obs.values.subspan(g * n.tokens * n.d, n.tokens * n.d), n, mean);
            }
        }
        return {.score = with_protected(prompt, scores, set_.n_sink, /*first=*/true)};
    }

  private:
    struct Sizes {
        Sizes(const PromptShape & p, int32_t n_sink)
            : tokens(static_cast<size_t>(p.n_tokens)),
              sink(static_cast<size_t>(n_sink)),
              scored(tokens - sink),
              d(static_cast<size_t>(p.head_dim)),
              group(static_cast<size_t>(p.n_head_kv)),
              shared(static_cast<size_t>(p.n_head / p.n_head_kv)) {}
        size_t tokens, sink, scored, d, group, shared;
    };

    static void check_rope(const PromptShape & prompt, int32_t il) {
        const size_t m = prompt.rope.freqs.size();
        if (m == 0 || 2 * m > static_cast<size_t>(prompt.head_dim)) {
            throw Error(ErrorCode::bad_input, "array rope_freqs has " + std::to_string(m) + " frequencies in layer " +
                                                  std::to_string(il) + "; expected 1 to " +
                                                  std::to_string(prompt.head_dim / 2) + ", half the head size");
        }
    }

    QueryStats query_stats(const PromptShape & prompt, int32_t il, const LayerObservation & obs, size_t h) const {
        const Sizes n(prompt, set_.n_sink);
        const size_t n_head = n.group * n.shared;
        if (!obs.queries.empty()) {
            const auto queries = observed(obs.queries, n_head * n.tokens * n.d, "queries", il);
            return stats_of(queries.subspan(h * n.tokens * n.d, n.tokens * n.d), n.tokens, n.d, n.sink,
                            set_.covariance);
        }
        QueryStats out;
        const auto mean = observed(obs.query_mean, n_head * n.d, "query_mean", il).subspan(h * n.d, n.d);
        out.mean.assign(mean.begin(), mean.end());
        if (set_.covariance) {
            const auto cov =
                observed(obs.query_cov, n_head * n.d * n.d, "query_cov", il).subspan(h * n.d * n.d, n.d * n.d);
            out.cov.assign(cov.begin(), cov.end());
        }
        return out;
    }

    /// acc[k] += softmax over the tokens behind the sinks of z[k] = mu.K / sqrt(d) + K^T C K / d / 2.
    static void add_attention(const QueryStats & stats, const std::vector<double> & keys, const Sizes & n,
                              std::span<double> acc) {
        const auto d = static_cast<double>(n.d);
        const QuadraticForm form(stats.cov, n.d);
        std::vector<double> z(n.scored), scratch;
        for (size_t k = 0; k < n.scored; ++k) {
            const auto key = std::span(keys).subspan((k + n.sink) * n.d, n.d);
            double product = 0;
            for (size_t i = 0; i < n.d; ++i) {
                product += stats.mean[i] * key[i];
            }
            z[k] = product / std::sqrt(d);
            if (!stats.cov.empty()) {
                z[k] += form(key, scratch) / d / 2;
            }
        }
        const double most = *std::max_element(z.begin(), z.end());
        double sum = 0;
        for (double & x : z) {
            x = std::exp(x - most);
            sum += x;
        }
        for (size_t k = 0; k < n.scored; ++k) {
            acc[k] += z[k] / sum;
        }
    }

    void weigh_by_values(std::span<const float> values, const Sizes & n, std::span<double> score) const {
        for (size_t k = 0; k < n.scored; ++k) {
            double squares = 0;
            for (const float x : values.subspan((k + n.sink) * n.d, n.d)) {
                squares += static_cast<double>(x) * static_cast<double>(x);
            }
            score[k] = (score[k] + set_.epsilon) * std::sqrt(squares);
        }
    }

    Settings set_;
};

ParamSpec flag(std::string name, std::string help) {
    return {.name = std::move(name), .help = std::move(help), .def = 1.0, .min = 0, .max = 1, .integer = true};
}

}  // namespace

MethodFile expected_attention_file() {
    return {
        .method = MethodRow{.name = "expected_attention",
                            .paper = "arXiv 2510.00636",
                            .summary = "Keeps the rows that future queries are expected to attend to, weighed by their "
                                       "values.",
                            .scorer = "expected_attention",
                            .allocator = "uniform"},
        .scorer = ScorerPart{
            .name = "expected_attention",
            .summary = "Attention expected from queries distributed like the prompt's; the sinks stay.",
            .per_head = true,
            .mass = true,
            .params = {{.name = "n_future",
                        .help = "positions ahead that the queries are rotated to",
                        .def = 512.0,
                        .min = 1,
                        .max = 65536,
                        .integer = true},
                       {.name = "n_sink",
                        .help = "rows at the start that stay and whose queries do not count",
                        .def = 4.0,
                        .min = 0,
                        .max = 65536,
                        .integer = true},
                       flag("covariance", "1: the queries' covariance counts, too"),
                       flag("vnorm", "1: attention is multiplied by the value's norm"),
                       {.name = "epsilon", .help = "added to attention before that", .def = 0.0, .min = 0, .max = 1}},
            .make = [](const BoundParams & p) -> std::unique_ptr<Scorer> {
                return std::make_unique<ExpectedAttentionScorer>(Settings{.n_future = p.integer("n_future"),
                                                                          .n_sink = p.integer("n_sink"),
                                                                          .covariance = p.number("covariance") != 0,
                                                                          .vnorm = p.number("vnorm") != 0,
                                                                          .epsilon = p.number("epsilon")});
            }}};
}

}  // namespace kvsieve
