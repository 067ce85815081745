// SPDX-License-Identifier: MIT
// The figures of a report, each with its table, as HTML.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "eval/aggregate.h"

namespace kvsieve::report {

/// Which colour a method has in all figures: "s0", "s1", ...; "sf" for the full cache, "so" for the oracle.
class Colours {
  public:
    explicit Colours(const std::vector<ReportRow> & rows);
    [[nodiscard]] std::string of(const CellKey & key) const;
    /// The list of colours and KV types, as HTML.
    [[nodiscard]] std::string legend() const;

  private:
    std::vector<std::string> labels_, types_;
    size_t n_numbered_ = 0;  // colours given
    std::map<std::string, std::string> classes_;
};

/// A metric's name for people, and its number.
[[nodiscard]] std::string metric_title(const std::string & metric);
[[nodiscard]] std::string metric_text(const std::string & metric, double value);

/// <table> in a box that scrolls. The first column is text. Entries are HTML.
[[nodiscard]] std::string table(const std::vector<std::string> & head,
                                const std::vector<std::vector<std::string>> & rows);
/// <details> with a table in it.
[[nodiscard]] std::string folded(const std::string & summary, const std::string & content);

// Each returns "" where the results have nothing for it.
[[nodiscard]] std::string leaderboard_section(const std::vector<ReportRow> & rows,
                                              const std::vector<std::string> & metrics, const Colours & colours);
[[nodiscard]] std::string quality_section(const std::vector<ReportRow> & rows, const std::vector<std::string> & metrics,
                                          const Colours & colours);
[[nodiscard]] std::string budget_section(const std::vector<ReportRow> & rows);
[[nodiscard]] std::string lorenz_section(const LayerInequality & layers);
[[nodiscard]] std::string aircache_section(const std::vector<ReportRow> & rows, const Colours & colours);
[[nodiscard]] std::string overlay_section(const Results & results);

}  // namespace kvsieve::report
