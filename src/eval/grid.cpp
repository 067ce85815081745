// SPDX-License-Identifier: MIT
#include "eval/grid.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "io/profile.h"
#include "kvsieve/error.h"
#include "kvsieve/policy.h"
#include "policy/number.h"
#include "policy/params.h"

namespace kvsieve {
namespace {

/// A parameter of the evaluation's own: budgets from a file.
constexpr const char * kProfile = "profile";
/// The KV type of cells whose method chooses row types.
constexpr const char * kAutoType = "auto";

[[noreturn]] void refuse(const std::string & sentence) {
    throw Error(ErrorCode::invalid_argument, sentence);
}

/// The list's entries; `option` is what the user knows it by.
std::vector<std::string> list_of(std::string_view text, const std::string & option) {
    std::vector<std::string> parts = split(text, ',');
    for (size_t i = 0; i < parts.size(); ++i) {
        if (parts[i].empty()) {
            refuse(option + " has an empty entry, expected values separated by commas");
        }
        if (std::find(parts.begin(), parts.begin() + static_cast<std::ptrdiff_t>(i), parts[i]) !=
            parts.begin() + static_cast<std::ptrdiff_t>(i)) {
            refuse(option + " names " + parts[i] + " twice");
        }
    }
    return parts;
}

/// Shares in (0, 1].
std::vector<double> shares_of(std::string_view text, const std::string & option) {
    std::vector<double> shares;
    if (text.empty()) {
        return shares;
    }
    for (const std::string & part : list_of(text, option)) {
        const auto share = parse_number(part);
        if (!share || *share <= 0.0 || *share > 1.0) {
            refuse(option + " takes numbers in (0, 1], got " + part);
        }
        if (std::find(shares.begin(), shares.end(), *share) != shares.end()) {
            refuse(option + " names " + number_text(*share) + " twice");
        }
        shares.push_back(*share);
    }
    return shares;
}

/// Method and parameters, the rest empty.
CellKey method_of(const std::string & text) {
    const std::vector<std::string> parts = split(text, ':');
    CellKey key{.method = parts[0]};
    for (size_t i = 1; i < parts.size(); ++i) {
        const size_t equal = parts[i].find('=');
        if (equal == std::string::npos || equal == 0 || equal + 1 == parts[i].size()) {
            refuse("--methods: " + text + " has the parameter '" + parts[i] +
                   "', expected NAME=VALUE, as in aircache:alpha=0.8");
        }
        if (!key.params.emplace(parts[i].substr(0, equal), parts[i].substr(equal + 1)).second) {
            refuse("--methods: " + text + " sets " + parts[i].substr(0, equal) + " twice");
        }
    }
    return key;
}

}  // namespace

std::string registered_method(const CellKey & key) {
    return key.method == kOracle ? "sieve" : key.method;
}

std::map<std::string, std::string> method_params(const CellKey & key) {
    std::map<std::string, std::string> params = key.params;
    params.erase(kProfile);
    if (key.kv_type == kAutoType) {
        params[kPrecision] = "auto";
    }
    return params;
}

MethodOptions method_options(const CellKey & key) {
    MethodOptions options{.keep = key.keep.value_or(1.0), .params = method_params(key)};
    if (const auto profile = key.params.find(kProfile); profile != key.params.end()) {
        options.profile = read_profile(profile->second);
    }
    return options;
}

CellRows cell_rows(std::string_view kv_type) {
    constexpr std::string_view unrotated = "-unrotated";
    if (kv_type == kAutoType) {
        return {"f16", true};  // as rows come; plans choose what they become
    }
    const bool rotate = !kv_type.ends_with(unrotated);
    return {std::string(kv_type.substr(0, kv_type.size() - (rotate ? 0 : unrotated.size()))), rotate};
}

std::vector<CellKey> parse_grid(const GridText & text) {
    const std::vector<double> keeps = shares_of(text.keeps, "--keep");
    const std::vector<double> budgets = shares_of(text.budgets, "--budget");
    const std::vector<std::string> types = list_of(text.kv_types, "--kv-type");
    for (const std::string & type : types) {
        const CellRows rows = cell_rows(type);
        if (rows.type != "q8_0" && rows.type != "q4_0" && type != "f16" && type != kAutoType) {
            refuse("--kv-type takes f16, q8_0, q4_0, the last two also with -unrotated behind them, and auto, got " +
                   type);
        }
    }
    std::vector<CellKey> grid;
    const auto add = [&](const CellKey & key) {
        for (const std::string & type : types) {
            if (type == kAutoType && !can_choose_row_types(method_info(registered_method(key)))) {
                continue;
            }
            grid.push_back(key);
            grid.back().kv_type = type;
            if (std::find(grid.begin(), std::prev(grid.end()), grid.back()) != std::prev(grid.end())) {
                refuse("--methods names " + method_label(key) + " twice");
            }
        }
    };
    std::vector<std::string> names;
    for (const std::string & name : list_of(text.methods, "--methods")) {
        if (name != "all") {
            names.push_back(name);
            continue;
        }
        for (const MethodInfo & info : methods()) {
            names.emplace_back(info.name);
        }
    }
    for (const std::string & part : names) {
        CellKey key = method_of(part);
        const bool takes_keep = !method_info(registered_method(key)).keep_of.empty() && !key.params.contains(kProfile);
        if (takes_keep && keeps.empty() && budgets.empty()) {
            refuse("method " + key.method + " needs --keep or --budget");
        }
        if (!takes_keep) {
            key.keep = 1.0;
        }
        // keep and parameters are checked by the method's own rules, before any model is loaded
        for (const double keep : takes_keep && !keeps.empty() ? keeps : std::vector<double>{1.0}) {
            CellKey checked = key;
            checked.keep = keep;
            static_cast<void>(make_method(registered_method(key), method_options(checked)));
        }
        if (!takes_keep) {
            add(key);
            continue;
        }
        for (const double keep : keeps) {
            key.keep = keep;
            add(key);
        }
        key.keep.reset();
        for (const double budget : budgets) {
            key.budget = budget;
            add(key);
        }
    }
    return grid;
}

std::vector<std::string> parse_metrics(std::string_view text) {
    std::vector<std::string> known = {"ppl"};
    known.insert(known.end(), std::begin(kMeanMetrics), std::end(kMeanMetrics));
    std::vector<std::string> metrics = list_of(text, "--metrics");
    for (const std::string & metric : metrics) {
        if (std::find(known.begin(), known.end(), metric) == known.end()) {
            refuse("the metric " + metric + " is not known, expected one of " + word_list(known));
        }
    }
    return metrics;
}

}  // namespace kvsieve
