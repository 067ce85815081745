// SPDX-License-Identifier: MIT
// Report rows as JSON, CSV and a table.
#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "eval/aggregate.h"
#include "eval/fixed.h"
#include "policy/number.h"

namespace kvsieve {
namespace {

/// The metrics that any row has, in the order of reports.
std::vector<std::string> metric_names(const std::vector<ReportRow> & rows) {
    std::vector<std::string> names{"ppl", "ppl_ratio"};
    names.insert(names.end(), std::begin(kMeanMetrics), std::end(kMeanMetrics));
    std::erase_if(names, [&](const std::string & name) {
        return std::none_of(rows.begin(), rows.end(),
                            [&](const ReportRow & row) { return row.metrics.contains(name); });
    });
    return names;
}

std::string params_text(const CellKey & key) {
    std::string out;
    for (const auto & [name, value] : key.params) {
        out += (out.empty() ? "" : " ") + name + "=" + value;
    }
    return out;
}

/// RFC 4180
std::string csv_field(const std::string & text) {
    if (text.find_first_of(",\"\n\r") == std::string::npos) {
        return text;
    }
    std::string out = "\"";
    for (const char c : text) {
        out += c == '"' ? "\"\"" : std::string(1, c);
    }
    return out + "\"";
}

std::string joined(const std::vector<std::string> & fields) {
    std::string out;
    for (const std::string & field : fields) {
        out += (out.empty() ? "" : ",") + csv_field(field);
    }
    return out + "\n";
}

}  // namespace

std::string rows_as_json(const std::vector<ReportRow> & rows) {
    auto out = nlohmann::ordered_json::array();
    for (const ReportRow & row : rows) {
        auto & object = out.emplace_back(nlohmann::ordered_json::object());
        object["method"] = row.key.method;
        object["params"] = row.key.params;
        object["keep"] = row.keep;
        object["budget"] = nullptr;
        if (row.key.budget) {
            object["budget"] = *row.key.budget;
        }
        object["kv_type"] = row.key.kv_type;
        object["kv_bytes"] = row.kv_bytes;
        object["kv_bytes_full"] = row.kv_bytes_full;
        object["n_samples"] = row.n_samples;
        object["n_failed"] = row.n_failed;
        object["n_tokens"] = row.n_tokens;
        for (const std::string & name : metric_names({row})) {
            const Estimate & estimate = row.metrics.at(name);
            object[name] = estimate.value;
            object[name + "_ci"] = {estimate.low, estimate.high};
        }
    }
    return out.dump(1) + "\n";
}

std::string rows_as_csv(const std::vector<ReportRow> & rows) {
    std::vector<std::string> fields{"method",   "params",        "keep",      "budget",   "kv_type",
                                    "kv_bytes", "kv_bytes_full", "n_samples", "n_failed", "n_tokens"};
    const std::vector<std::string> names = metric_names(rows);
    for (const std::string & name : names) {
        fields.insert(fields.end(), {name, name + "_low", name + "_high"});
    }
    std::string out = joined(fields);
    for (const ReportRow & row : rows) {
        fields = {row.key.method,
                  params_text(row.key),
                  number_text(row.keep),
                  row.key.budget ? number_text(*row.key.budget) : "",
                  row.key.kv_type,
                  number_text(row.kv_bytes),
                  number_text(row.kv_bytes_full),
                  std::to_string(row.n_samples),
                  std::to_string(row.n_failed),
                  std::to_string(row.n_tokens)};
        for (const std::string & name : names) {
            const auto found = row.metrics.find(name);
            const bool has = found != row.metrics.end();
            const Estimate estimate = has ? found->second : Estimate{};
            for (const double value : {estimate.value, estimate.low, estimate.high}) {
                fields.push_back(has ? number_text(value) : "");
            }
        }
        out += joined(fields);
    }
    return out;
}

std::string rows_as_text(const std::vector<ReportRow> & rows) {
    const std::vector<std::string> names = metric_names(rows);
    std::vector<std::vector<std::string>> table{{"method", "keep", "budget", "kv_type", "bytes", "samples"}};
    table[0].insert(table[0].end(), names.begin(), names.end());
    for (const ReportRow & row : rows) {
        auto & line = table.emplace_back(std::vector<std::string>{
            method_label(row.key), fixed(row.keep, 3), row.key.budget ? number_text(*row.key.budget) : "",
            row.key.kv_type, row.n_samples > 0 ? fixed(100 * row.share(), 1) + " %" : "",
            std::to_string(row.n_samples) + (row.n_failed > 0 ? " -" + std::to_string(row.n_failed) : "")});
        for (const std::string & name : names) {
            const auto found = row.metrics.find(name);
            line.push_back(found == row.metrics.end() ? "" : fixed(found->second.value, 3));
        }
    }
    std::vector<size_t> widths(table[0].size(), 0);
    for (const auto & line : table) {
        for (size_t i = 0; i < line.size(); ++i) {
            widths[i] = std::max(widths[i], line[i].size());
        }
    }
    std::string out;
    for (const auto & line : table) {
        for (size_t i = 0; i < line.size(); ++i) {
            const std::string pad(widths[i] - line[i].size(), ' ');
            out += i == 0 ? line[i] + pad : "  " + pad + line[i];
        }
        out += "\n";
    }
    if (has_oracle(rows)) {
        out += std::string(kOracleNote) + "\n";
    }
    return out;
}

}  // namespace kvsieve
