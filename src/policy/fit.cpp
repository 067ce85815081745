// SPDX-License-Identifier: MIT
// The largest keep that a cap on the rows allows.
#include <string>
#include <vector>

#include "kvsieve/error.h"
#include "kvsieve/policy.h"

namespace kvsieve {
namespace {

constexpr double kResolution = 1e-9;

/// Does the number of rows depend on what is observed?
bool depends_on_scores(const Method & method) {
    return !method.traits().layerwise && method.traits().prune_layer == 0;
}

/// Scores that stand for those not yet known, of a method whose numbers of rows do not depend on them.
std::vector<LayerScore> blank_scores(const Method & method, const PromptShape & prompt) {
    const size_t n_set = method.traits().per_head ? static_cast<size_t>(prompt.n_head_kv) : 1;
    const LayerScore blank{.score = std::vector<double>(n_set * static_cast<size_t>(prompt.n_tokens), 0.0)};
    return std::vector<LayerScore>(static_cast<size_t>(prompt.n_layer), blank);
}

}  // namespace

RowFit fit_rows(std::string_view name, const MethodOptions & options, const PromptShape & prompt,
                std::span<const LayerScore> scores, int64_t max_rows) {
    const MethodInfo & info = method_info(name);
    RowFit fit{.options = options};
    const bool fixed = info.keep_of.empty() || options.profile;
    fit.options.keep = 1;
    std::unique_ptr<Method> method = info.make(fit.options);
    method->check(prompt);
    std::vector<LayerScore> blank;
    if (scores.empty()) {
        if (depends_on_scores(*method)) {
            throw Error(ErrorCode::invalid_argument,
                        "the rows of this method depend on its scores; expected those of all layers");
        }
        blank = blank_scores(*method, prompt);
    }
    const std::span<const LayerScore> used = scores.empty() ? std::span<const LayerScore>(blank) : scores;
    const auto rows_at = [&](double keep) {
        fit.options.keep = keep;
        method = info.make(fit.options);
        return method->count_rows(prompt, used);
    };

    // The least keep that is tried gives one row to every set, or to a visual method none of the visual rows.
    const double least = method->traits().modality ? kResolution : 1.0 / prompt.n_tokens;
    double low = 1, high = 1;
    fit.n_rows = rows_at(1);
    if (fit.n_rows > max_rows) {
        if (!fixed) {
            low = least;
            fit.n_rows = rows_at(low);
        }
        if (fit.n_rows > max_rows) {
            throw Error(ErrorCode::invalid_argument,
                        "method " + std::string(name) + " cannot keep at most " + std::to_string(max_rows) +
                            " rows of this prompt: its smallest plan has " + std::to_string(fit.n_rows) +
                            " rows over all layers and KV heads");
        }
        while (high - low > kResolution) {
            const double middle = low + (high - low) / 2;
            const int64_t n = rows_at(middle);
            if (n <= max_rows) {
                low = middle;
                fit.n_rows = n;
            } else {
                high = middle;
            }
        }
    }
    fit.options.keep = low;
    if (!scores.empty()) {
        fit.plan = info.make(fit.options)->plan(prompt, scores);
    }
    return fit;
}

std::optional<int64_t> count_rows_beforehand(const Method & method, const PromptShape & prompt) {
    if (depends_on_scores(method)) {
        return std::nullopt;
    }
    return method.count_rows(prompt, blank_scores(method, prompt));
}

}  // namespace kvsieve
