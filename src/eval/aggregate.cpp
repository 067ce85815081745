// SPDX-License-Identifier: MIT
#include "eval/aggregate.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace kvsieve {
namespace {

constexpr uint64_t kSeed = 20241203;
constexpr double kLow = 0.025, kHigh = 0.975;
constexpr double kUsualShares[] = {0.5, 0.2, 0.1, 0.05};

/// Every metric is a ratio of two sums over samples.
struct Ratio {
    std::vector<double> over, under;  ///< [groups]
    bool exponential = false;         ///< exp of the ratio

    explicit Ratio(size_t n_groups = 0, bool e = false) : over(n_groups), under(n_groups), exponential(e) {}
    void add(size_t group, double numerator, double denominator) {
        over[group] += numerator;
        under[group] += denominator;
    }
};

/// How often each resample draws each group.
class Bootstrap {
  public:
    Bootstrap(size_t n_groups, int n_resamples) : n_groups_(n_groups) {
        std::mt19937_64 random(kSeed);
        draws_.resize(n_groups * static_cast<size_t>(n_resamples));
        for (size_t first = 0; first < draws_.size(); first += n_groups) {
            for (size_t i = 0; i < n_groups; ++i) {
                ++draws_[first + random() % n_groups];  // biased by less than 2^-40, and alike on every platform
            }
        }
    }

    [[nodiscard]] Estimate estimate(const Ratio & ratio) const {
        const std::vector<uint16_t> once(n_groups_, 1);
        Estimate out;
        out.value = out.low = out.high = value_of(ratio, once.data()).value_or(std::nan(""));
        std::vector<double> values;
        for (size_t first = 0; first < draws_.size(); first += n_groups_) {
            if (const auto value = value_of(ratio, &draws_[first])) {
                values.push_back(*value);
            }
        }
        if (!values.empty()) {
            std::sort(values.begin(), values.end());
            out.low = percentile(values, kLow);
            out.high = percentile(values, kHigh);
        }
        return out;
    }

  private:
    [[nodiscard]] std::optional<double> value_of(const Ratio & ratio, const uint16_t * draws) const {
        double over = 0, under = 0;
        for (size_t g = 0; g < n_groups_; ++g) {
            over += draws[g] * ratio.over[g];
            under += draws[g] * ratio.under[g];
        }
        if (!(under > 0)) {
            return std::nullopt;
        }
        return ratio.exponential ? std::exp(over / under) : over / under;
    }

    static double percentile(const std::vector<double> & sorted, double p) {
        const double at = p * static_cast<double>(sorted.size() - 1);
        const auto below = static_cast<size_t>(at);
        const size_t above = std::min(below + 1, sorted.size() - 1);
        return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
    }

    size_t n_groups_;
    std::vector<uint16_t> draws_;  // [resamples][groups]
};

/// Running mean of lists; lists of another length than the first are left out.
class ListMean {
  public:
    template <typename T>
    void add(const std::vector<T> & list, double scale = 1.0) {
        if (list.empty() || (n_ > 0 && list.size() != sum_.size())) {
            return;
        }
        sum_.resize(list.size());
        for (size_t i = 0; i < list.size(); ++i) {
            sum_[i] += scale * static_cast<double>(list[i]);
        }
        ++n_;
    }
    [[nodiscard]] std::vector<double> mean() const {
        std::vector<double> out = sum_;
        for (double & x : out) {
            x /= static_cast<double>(n_);
        }
        return out;
    }
    [[nodiscard]] int64_t count() const { return n_; }

  private:
    std::vector<double> sum_;
    int64_t n_ = 0;
};

bool is_reference(const CellKey & key) {
    return key.method == "full" && key.kv_type == "f16";
}

ReportRow row_of(const std::vector<const CellResult *> & cells, const ResultsHeader & header,
                 const std::map<std::string, size_t> & groups, const std::map<std::string, const CellResult *> & full,
                 const Bootstrap & bootstrap) {
    ReportRow row{.key = cells[0]->key};
    std::map<std::string, Ratio> ratios;
    const auto ratio = [&](const std::string & name, bool exponential) -> Ratio & {
        return ratios.try_emplace(name, groups.size(), exponential).first->second;
    };
    ListMean shares, strength, skewness;
    double keep = 0;
    for (const CellResult * const cell : cells) {
        if (!cell->error.empty()) {
            ++row.n_failed;
            continue;
        }
        ++row.n_samples;
        keep += cell->keep;
        row.kv_bytes += static_cast<double>(cell->kv_bytes);
        row.kv_bytes_full += static_cast<double>(cell->kv_bytes_full);
        row.n_tokens += cell->n_tokens;
        const size_t group = groups.at(cell->group);
        if (cell->n_tokens > 0) {
            const auto n = static_cast<double>(cell->n_tokens);
            ratio("ppl", true).add(group, cell->nll, n);
            const auto reference = full.find(cell->sample);
            if (reference != full.end() && reference->second->n_tokens == cell->n_tokens) {
                ratio("ppl_ratio", true).add(group, cell->nll - reference->second->nll, n);
            }
        }
        for (const auto & [name, value] : cell->metrics) {
            const double n = name == "exact_match_next" ? static_cast<double>(cell->n_next) : 1.0;
            ratio(name, false).add(group, value * n, n);
        }
        const double layer_rows = static_cast<double>(cell->n_prompt) * header.n_head_kv;
        shares.add(cell->layer_rows, layer_rows > 0 ? 1.0 / layer_rows : 0.0);
        strength.add(cell->strength);
        skewness.add(cell->skewness);
    }
    if (row.n_samples > 0) {
        const auto n = static_cast<double>(row.n_samples);
        row.keep = keep / n;
        row.kv_bytes /= n;
        row.kv_bytes_full /= n;
    }
    for (const auto & [name, sums] : ratios) {
        row.metrics[name] = bootstrap.estimate(sums);
    }
    row.layer_share = shares.mean();
    row.strength = strength.mean();
    row.skewness = skewness.mean();
    return row;
}

/// Linear on log(share) between the two neighbouring points of one method, ascending by share.
std::optional<Standing> interpolate(const std::vector<std::pair<double, double>> & points, double share) {
    for (size_t i = 1; i < points.size(); ++i) {
        const auto & [x0, y0] = points[i - 1];
        const auto & [x1, y1] = points[i];
        if (x0 <= share && share <= x1 && x1 > x0) {
            const double t = std::log(share / x0) / std::log(x1 / x0);
            const double y = y0 + t * (y1 - y0);
            return Standing{{y, y, y}, true};
        }
    }
    return std::nullopt;
}

}  // namespace

std::vector<ReportRow> aggregate(const Results & results, int n_resamples) {
    std::map<std::string, size_t> groups;
    std::map<std::string, const CellResult *> full;
    std::map<CellKey, std::vector<const CellResult *>> by_key;
    for (const CellResult & cell : results.cells) {
        groups.emplace(cell.group, 0);
        by_key[cell.key].push_back(&cell);
        if (is_reference(cell.key) && cell.error.empty()) {
            full.emplace(cell.sample, &cell);
        }
    }
    size_t n_groups = 0;
    for (auto & [name, index] : groups) {
        index = n_groups++;
    }
    std::vector<ReportRow> rows;
    if (n_groups == 0) {
        return rows;
    }
    const Bootstrap bootstrap(n_groups, n_resamples);
    for (const CellKey & key : results.header.grid) {
        if (const auto found = by_key.find(key); found != by_key.end()) {
            rows.push_back(row_of(found->second, results.header, groups, full, bootstrap));
        }
    }
    return rows;
}

LayerInequality layer_inequality(const Results & results) {
    ListMean gini;
    std::vector<ListMean> lorenz;
    for (const SampleFacts & facts : results.samples) {
        gini.add(facts.gini);
        lorenz.resize(std::max(lorenz.size(), facts.lorenz.size()));
        for (size_t il = 0; il < facts.lorenz.size(); ++il) {
            lorenz[il].add(facts.lorenz[il]);
        }
    }
    LayerInequality out{.gini = gini.mean(), .lorenz = {}, .n_samples = gini.count()};
    for (const ListMean & layer : lorenz) {
        out.lorenz.push_back(layer.mean());
    }
    return out;
}

bool has_oracle(const std::vector<ReportRow> & rows) {
    return std::ranges::any_of(rows, [](const ReportRow & row) { return row.key.method == kOracle; });
}

bool lower_is_better(const std::string & metric) {
    return metric.starts_with("ppl");
}

Leaderboard leaderboard(const std::vector<ReportRow> & rows, const std::string & metric) {
    std::vector<std::pair<CellKey, std::vector<const ReportRow *>>> methods;
    std::map<double, int, std::greater<>> budgets;
    for (const ReportRow & row : rows) {
        if (!row.metrics.contains(metric) || row.n_samples == 0) {
            continue;
        }
        const CellKey key{.method = row.key.method, .params = row.key.params, .kv_type = row.key.kv_type};
        const auto is_key = [&](const auto & method) { return method.first == key; };
        auto found = std::find_if(methods.begin(), methods.end(), is_key);
        if (found == methods.end()) {
            found = methods.insert(methods.end(), {key, {}});
        }
        found->second.push_back(&row);
        if (row.key.budget) {
            ++budgets[*row.key.budget];
        }
    }
    Leaderboard board;
    for (const auto & [budget, n] : budgets) {
        board.shares.push_back(budget);
    }
    const bool by_budget = !board.shares.empty();
    if (!by_budget) {
        board.shares.assign(std::begin(kUsualShares), std::end(kUsualShares));
    }
    for (const auto & [key, of_method] : methods) {
        std::vector<std::pair<double, double>> points;
        for (const ReportRow * const row : of_method) {
            points.emplace_back(row->share(), row->metrics.at(metric).value);
        }
        std::sort(points.begin(), points.end());
        Leaderboard::Line line{.key = key, .at = {}};
        for (const double share : board.shares) {
            const auto exact = std::find_if(of_method.begin(), of_method.end(),
                                            [&](const ReportRow * row) { return row->key.budget == share; });
            if (exact != of_method.end()) {
                line.at.push_back(Standing{(*exact)->metrics.at(metric), false});
            } else {
                line.at.push_back(by_budget ? std::nullopt : interpolate(points, share));
            }
        }
        const auto has = [](const auto & standing) { return standing.has_value(); };
        if (std::any_of(line.at.begin(), line.at.end(), has)) {
            board.lines.push_back(std::move(line));
        }
    }
    // columns that nobody reaches
    for (size_t i = board.shares.size(); i-- > 0;) {
        if (std::none_of(board.lines.begin(), board.lines.end(), [&](const auto & line) { return line.at[i]; })) {
            board.shares.erase(board.shares.begin() + static_cast<std::ptrdiff_t>(i));
            for (auto & line : board.lines) {
                line.at.erase(line.at.begin() + static_cast<std::ptrdiff_t>(i));
            }
        }
    }
    size_t column = 0;
    for (size_t i = 0; i < board.shares.size(); ++i) {
        if (std::all_of(board.lines.begin(), board.lines.end(), [&](const auto & line) { return line.at[i]; })) {
            column = i;
        }
    }
    std::stable_sort(board.lines.begin(), board.lines.end(), [&](const auto & a, const auto & b) {
        if ((a.key.method == kOracle) != (b.key.method == kOracle)) {
            return b.key.method == kOracle;
        }
        if (!a.at[column] || !b.at[column]) {
            return a.at[column].has_value() && !b.at[column].has_value();
        }
        const double x = a.at[column]->estimate.value, y = b.at[column]->estimate.value;
        return lower_is_better(metric) ? x < y : x > y;
    });
    return board;
}

}  // namespace kvsieve
