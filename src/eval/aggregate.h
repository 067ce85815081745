// SPDX-License-Identifier: MIT
// From results to the rows of a report, with bootstrap intervals.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "eval/results.h"

namespace kvsieve {

/// A metric over all samples with its 95% interval.
struct Estimate {
    double value = 0.0;
    double low = 0.0, high = 0.0;
};

/// One cell of the grid over all its samples.
struct ReportRow {
    CellKey key;
    double keep = 1.0;         ///< mean over samples
    double kv_bytes = 0;       ///< mean of a sample
    double kv_bytes_full = 0;  ///< mean of a sample, every row in f16
    int64_t n_samples = 0;     ///< without the failed ones
    int64_t n_failed = 0;
    int64_t n_tokens = 0;
    /// ppl, ppl_ratio (to the full cache in f16 on the same samples), and those of kMeanMetrics that were measured.
    std::map<std::string, Estimate> metrics = {};
    std::vector<double> layer_share =
        {};                             ///< [L] share of a layer's rows that is held, mean over samples; may be empty
    std::vector<double> strength = {};  ///< [L] mean over samples; may be empty
    std::vector<double> skewness = {};  ///< [L]

    [[nodiscard]] double share() const { return kv_bytes / kv_bytes_full; }
};

/// Rows in the order of the header's grid; cells without any result are left out. Intervals are percentiles of
/// `n_resamples` bootstrap means; groups (images) are drawn, not questions, with one fixed seed, and the same draws for
/// every row, so that rows can be compared. The same results give the same rows, bit by bit.
[[nodiscard]] std::vector<ReportRow> aggregate(const Results & results, int n_resamples = 1000);

/// Mean Gini and Lorenz curve of each layer; empty where no sample has them.
struct LayerInequality {
    std::vector<double> gini;                 ///< [L]
    std::vector<std::vector<double>> lorenz;  ///< [L][n_points]
    int64_t n_samples = 0;
};
[[nodiscard]] LayerInequality layer_inequality(const Results & results);

/// A place in the leaderboard: what a method reaches at a share of the full f16 bytes.
struct Standing {
    Estimate estimate;
    bool interpolated = false;  ///< between two measured points, on log(bytes); no interval
};

/// The leaderboard of one metric: methods (with parameters and KV type) against equal shares.
struct Leaderboard {
    std::vector<double> shares;  ///< descending; the run's budgets, else 0.5, 0.2, 0.1, 0.05 as far as measured
    struct Line {
        CellKey key;                                   ///< without keep and budget
        std::vector<std::optional<Standing>> at = {};  ///< [shares]
    };
    std::vector<Line>
        lines;  ///< best first, at the smallest share where all have a value; the oracle without rank, last
};
[[nodiscard]] Leaderboard leaderboard(const std::vector<ReportRow> & rows, const std::string & metric);
/// Whether a report has to say kOracleNote.
[[nodiscard]] bool has_oracle(const std::vector<ReportRow> & rows);
/// Perplexities are better when lower.
[[nodiscard]] bool lower_is_better(const std::string & metric);

/// An array of rows {method, params, keep, budget, kv_type, kv_bytes, kv_bytes_full, n_samples, n_failed, n_tokens,
/// metrics, <metric>_ci}.
[[nodiscard]] std::string rows_as_json(const std::vector<ReportRow> & rows);
/// The same as comma-separated values with a header line; `<metric>_low` and `<metric>_high` instead of `_ci`.
[[nodiscard]] std::string rows_as_csv(const std::vector<ReportRow> & rows);
/// A table for a terminal.
[[nodiscard]] std::string rows_as_text(const std::vector<ReportRow> & rows);

}  // namespace kvsieve
