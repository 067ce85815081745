// SPDX-License-Identifier: MIT
#include "policy/markdown.h"

#include <string>
#include <vector>

#include "kvsieve/policy.h"
#include "policy/number.h"

namespace kvsieve {
namespace {

std::string observed(const Traits & traits) {
    std::vector<std::string> words;
    const auto add = [&](bool wanted, const std::string & word) {
        if (wanted) {
            words.push_back(word);
        }
    };
    add(traits.importance, "column sums");
    add(traits.colsum, "column sums per head");
    add(traits.rows == RowsWanted::last_window,
        traits.window == 1 ? "last row" : "last " + std::to_string(traits.window) + " rows");
    add(traits.rows == RowsWanted::text_after_visual, "rows of the text behind the image");
    add(traits.keys, "keys");
    add(traits.values, "values");
    add(traits.query_stats, "query mean and covariance");
    add(traits.probes, "attention of probe queries, output norms");
    add(traits.modality, "visual mask");
    return words.empty() ? "nothing" : word_list(words);
}

std::string parameters(const std::vector<ParamSpec> & params) {
    std::vector<std::string> words;
    words.reserve(params.size());
    for (const ParamSpec & spec : params) {
        words.push_back(
            "`" + spec.name + "` " +
            (spec.choices.empty() ? number_text(std::get<double>(spec.def)) : std::get<std::string>(spec.def)));
    }
    return words.empty() ? "" : word_list(words);
}

std::string part_rows(std::span<const PartInfo> parts) {
    std::string out;
    for (const PartInfo & part : parts) {
        out += "| `" + std::string(part.name) + "` | " + std::string(part.summary) + " | " + parameters(part.params) +
               " |\n";
    }
    return out;
}

}  // namespace

std::string methods_markdown() {
    std::string out =
        "| Method | Paper | Observes | Rows per | `keep` of | At once | Parameters |\n|---|---|---|---|---|---|---|\n";
    for (const MethodInfo & info : methods()) {
        const std::string name(info.name);
        out += "| [" + name + "](#" + std::string(info.section) + ") | " + std::string(info.paper) + " | " +
               observed(info.traits) + " | " + (info.traits.per_head ? "head" : "layer") + " | " +
               (info.keep_of.empty() ? "takes none" : std::string(info.keep_of)) + " | " +
               (info.traits.layerwise         ? "yes"
                : info.traits.prune_layer > 0 ? "prunes"
                : info.takes_profile          ? "with a profile"
                                              : "no") +
               " | " + parameters(info.params) + " |\n";
    }
    out += "\n| Scorer | The score of a row | Parameters |\n|---|---|---|\n" + part_rows(scorers());
    out += "\n| Allocator | The rows of a layer | Parameters |\n|---|---|---|\n" + part_rows(allocators());
    return out;
}

}  // namespace kvsieve
