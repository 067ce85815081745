// SPDX-License-Identifier: MIT
// kvsieve methods: the registry.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "commands.h"
#include "kvsieve/policy.h"
#include "policy/markdown.h"
#include "policy/number.h"
#include "print.h"

using namespace kvsieve;

namespace {

std::vector<std::string> observed_words(const Traits & traits) {
    std::vector<std::string> out;
    const auto add = [&](bool wanted, const std::string & word) {
        if (wanted) {
            out.push_back(word);
        }
    };
    add(traits.importance, "column sums of attention");
    add(traits.colsum, "column sums of attention per head");
    add(traits.rows == RowsWanted::last_window, fmt::format("attention rows of the last {} tokens", traits.window));
    add(traits.rows == RowsWanted::text_after_visual, "attention rows of the text behind the image");
    add(traits.keys, "keys");
    add(traits.values, "values");
    add(traits.query_stats, "mean and covariance of the queries");
    add(traits.probes, "attention of probe queries");
    add(traits.probes, "norms of the values behind the output projection");
    add(traits.modality, "visual token mask");
    return out;
}

std::string granularity(const Traits & traits) {
    return traits.per_head ? "head" : "layer";
}

std::string default_text(const ParamSpec & spec) {
    return spec.choices.empty() ? number_text(std::get<double>(spec.def)) : std::get<std::string>(spec.def);
}

std::string range_text(const ParamSpec & spec) {
    if (!spec.choices.empty()) {
        return fmt::format("{}", fmt::join(spec.choices, " | "));
    }
    return fmt::format("{} {} to {}",
                       spec.odd       ? "odd integer"
                       : spec.integer ? "integer"
                                      : "number",
                       number_text(spec.min), number_text(spec.max));
}

nlohmann::ordered_json to_json(const MethodInfo & info) {
    auto params = nlohmann::ordered_json::array();
    for (const ParamSpec & spec : info.params) {
        nlohmann::ordered_json param = {{"name", spec.name}, {"help", spec.help}};
        if (spec.choices.empty()) {
            param["type"] = spec.integer ? "integer" : "number";
            param["default"] = std::get<double>(spec.def);
            param["min"] = spec.min;
            param["max"] = spec.max;
        } else {
            param["type"] = "word";
            param["default"] = std::get<std::string>(spec.def);
            param["choices"] = spec.choices;
        }
        params.push_back(std::move(param));
    }
    return {{"name", info.name},
            {"paper", info.paper},
            {"summary", info.summary},
            {"section", info.section},
            {"observes", observed_words(info.traits)},
            {"granularity", granularity(info.traits)},
            {"keep_of", info.keep_of},
            {"profile", info.takes_profile},
            {"layerwise", info.traits.layerwise},
            {"evicts_while_decoding", info.traits.evicts_while_decoding},
            {"params", std::move(params)}};
}

std::string param_lines(const std::vector<ParamSpec> & params) {
    std::string out;
    for (const ParamSpec & spec : params) {
        out += fmt::format("    --set {}={}  {}; {}\n", spec.name, default_text(spec), spec.help, range_text(spec));
    }
    return out;
}

std::string to_text(const MethodInfo & info) {
    const std::vector<std::string> observes = observed_words(info.traits);
    std::string out = fmt::format("{}{}\n    {}\n", info.name,
                                  info.paper.empty() ? "" : fmt::format("  ({})", info.paper), info.summary);
    out += fmt::format("    observes     {}\n",
                       observes.empty() ? "nothing" : fmt::format("{}", fmt::join(observes, ", ")));
    out += fmt::format("    granularity  {}\n", granularity(info.traits));
    out += fmt::format("    keep counts  {}{}\n", info.keep_of.empty() ? "nothing (takes no --keep)" : info.keep_of,
                       info.takes_profile ? "; or --profile FILE" : "");
    if (info.traits.evicts_while_decoding) {
        out += "    decoding     goes on evicting\n";
    }
    out += param_lines(info.params);
    return out;
}

/// The parts of compositions.
std::string parts_text() {
    std::string out = "--scorer NAME\n";
    for (const PartInfo & part : scorers()) {
        out += fmt::format("\n{}\n    {}\n{}", part.name, part.summary, param_lines(part.params));
    }
    out += "\n--allocator NAME\n";
    for (const PartInfo & part : allocators()) {
        out += fmt::format("\n{}\n    {}\n{}", part.name, part.summary, param_lines(part.params));
    }
    return out;
}

}  // namespace

void add_methods_command(CLI::App & app) {
    CLI::App * const command = app.add_subcommand("methods", "List the compression methods and their parameters");
    const auto as_json = std::make_shared<bool>(false);
    const auto markdown = std::make_shared<bool>(false), parts = std::make_shared<bool>(false);
    CLI::Option * const json_flag = command->add_flag("--json", *as_json, "Print a JSON list");
    CLI::Option * const markdown_flag =
        command->add_flag("--markdown", *markdown, "Print the table of docs/methods.md")->excludes(json_flag);
    command->add_flag("--parts", *parts, "List the parts of compositions (--scorer, --allocator)")
        ->excludes(json_flag)
        ->excludes(markdown_flag);
    command->callback([as_json, markdown, parts] {
        if (*markdown) {
            print_out(methods_markdown());
            return;
        }
        if (*parts) {
            print_out(parts_text());
            return;
        }
        if (*as_json) {
            auto list = nlohmann::ordered_json::array();
            for (const MethodInfo & info : methods()) {
                list.push_back(to_json(info));
            }
            print_out(list.dump(2) + "\n");
            return;
        }
        std::string text;
        for (const MethodInfo & info : methods()) {
            text += (text.empty() ? "" : "\n") + to_text(info);
        }
        print_out(text);
    });
}
