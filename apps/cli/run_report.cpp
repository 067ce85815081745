// SPDX-License-Identifier: MIT
#include "run_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <vector>

#include "format.h"
#include "io/plan_json.h"

using namespace kvsieve;

namespace {

/// Bytes that full f16 rows would take beyond those held; rows kept in full with quantisation count as freed too.
uint64_t freed_bytes(const KvUsage & usage) {
    return usage.bytes_full_f16 - std::min(usage.bytes_full_f16, usage.bytes_held);
}

double percent(uint64_t part, uint64_t whole) {
    return whole == 0 ? 0.0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

double tokens_per_second(int32_t n, double ms) {
    return ms > 0.0 ? n / ms * 1000.0 : 0.0;
}

/// Rows that the plan kept of the first prompt, summed over layers and KV heads.
uint64_t plan_rows(const Session & session) {
    uint64_t rows = 0;
    for (const LayerPlan & layer : session.plan()->layers) {
        for (int32_t g = 0; g < session.prompt_shape().n_head_kv; ++g) {
            rows += layer.of_head(g).size();
        }
    }
    return rows;
}

/// Their bytes.
uint64_t plan_bytes(const Session & session) {
    const KvUsage usage = session.usage();
    uint64_t cost = 0, n_list = 0;
    for (size_t il = 0; il < usage.type_of.size(); ++il) {
        for (size_t g = 0; g < usage.type_of[il].size(); ++g, ++n_list) {
            cost += static_cast<uint64_t>(row_cost(usage.type_of[il][g])) *
                    session.plan()->layers[il].of_head(static_cast<int32_t>(g)).size();
        }
    }
    const uint64_t all_rows = n_list * static_cast<uint64_t>(session.n_processed());
    return all_rows == 0 ? 0 : usage.bytes_full_f16 / all_rows * cost / static_cast<uint64_t>(row_cost(KvType::f16));
}

/// KV heads by their row type.
std::map<KvType, size_t> heads_of_types(const KvUsage & usage) {
    std::map<KvType, size_t> out;
    for (const auto & layer : usage.type_of) {
        for (const KvType type : layer) {
            ++out[type];
        }
    }
    return out;
}

/// "q8_0", or "3 f16, 12 q8_0, 17 q4_0 heads".
std::string types_text(const KvUsage & usage) {
    const auto heads = heads_of_types(usage);
    std::string text;
    for (const auto & [type, n] : heads) {
        const std::string count = heads.size() > 1 ? fmt::format("{} ", n) : "";
        text += fmt::format("{}{}{}", text.empty() ? "" : ", ", count, kv_type_name(type));
    }
    return text + (heads.size() > 1 ? " heads" : "");
}

std::string finish_text(FinishReason reason) {
    switch (reason) {
        case FinishReason::end_of_generation:
            return "end of answer";
        case FinishReason::stop_text:
            return "stop text";
        case FinishReason::length:
            return "limit reached (-n)";
        case FinishReason::context:
            return "context full (-c)";
        case FinishReason::kv_budget:
            return "KV budget full (--kv-budget)";
    }
    return "";
}

/// Rows of one layer over its sets: one set for all heads, or one per KV head.
struct LayerBudget {
    double mean = 0;
    size_t least = 0;
    size_t most = 0;
};

LayerBudget budget_of(const LayerPlan & layer) {
    LayerBudget budget{.mean = 0, .least = layer.kept.front().size(), .most = 0};
    for (const auto & kept : layer.kept) {
        budget.mean += static_cast<double>(kept.size()) / static_cast<double>(layer.kept.size());
        budget.least = std::min(budget.least, kept.size());
        budget.most = std::max(budget.most, kept.size());
    }
    return budget;
}

}  // namespace

std::string method_title(const MethodChoice & choice) {
    std::string title = choice.method;
    if (choice.options.profile) {
        title += ", profile";
    } else if (!method_info(choice.method).keep_of.empty()) {
        title += fmt::format(", keep {}", choice.options.keep);
    }
    for (const auto & [name, value] : choice.options.params) {
        title += fmt::format(", {} {}", name, value);
    }
    return title;
}

std::string statistics(const TerminalStyle & style, const RunSetup & setup, const Session & session,
                       const Answer & answer) {
    const KvUsage usage = session.usage();
    const Timings & times = answer.timings;
    const std::string_view arrow = style.pick("→", "->");
    const std::string_view dot = style.pick(" · ", " | ");
    const auto line = [&](std::string_view label, const std::string & text) {
        return style.bold(fmt::format("{:<10}", label)) + text + "\n";
    };
    const std::string kept =
        fmt::format("{} {} {} kept", format_bytes(usage.bytes_full_f16), arrow, format_bytes(usage.bytes_held));
    const std::string freed = fmt::format("{} freed ({:.1f} %)", format_bytes(freed_bytes(usage)),
                                          percent(freed_bytes(usage), usage.bytes_full_f16));
    const std::string types = types_text(usage), type = types == "f16" ? types : fmt::format("f16 {} {}", arrow, types);

    std::string text;
    text += line("tokens", fmt::format("{} prompt ({} text, {} visual){}{} answer, {}", answer.n_prompt, answer.n_text,
                                       answer.n_visual, dot, answer.tokens.size(), finish_text(answer.finish)));
    text += line("KV cache", fmt::format("{}{}{}{}{}", kept, dot, freed, dot, type));
    text +=
        line("", fmt::format("{} reserved{}{} at the peak of prefill{}{} scratch", format_bytes(usage.bytes_reserved),
                             dot, format_bytes(session.peak_kv_bytes()), dot, format_bytes(session.scratch_bytes())));
    if (setup.capped) {
        text += line("KV cap", fmt::format("keep {:.6g} found{}{} rows{}{}", session.method_options().keep, dot,
                                           plan_rows(session), dot, format_bytes(plan_bytes(session))));
    }
    std::string time;
    if (answer.n_visual > 0) {
        time += fmt::format("vision {}{}", format_ms(times.vision_ms), dot);
    }
    time += fmt::format("prefill {} ({:.0f} tok/s)", format_ms(times.prefill_ms),
                        tokens_per_second(answer.n_prompt, times.prefill_ms));
    if (session.plan() != nullptr && !session.plan()->keeps_everything && times.compact_ms > 0.0) {
        time +=
            fmt::format("{}plan {}{}compaction {}", dot, format_ms(times.plan_ms), dot, format_ms(times.compact_ms));
    }
    text += line("time", time);
    if (times.n_decoded > 0) {
        text +=
            line("decode", fmt::format("{:.1f} tok/s ({} in {})", tokens_per_second(times.n_decoded, times.decode_ms),
                                       times.n_decoded, format_ms(times.decode_ms)));
    }
    return text;
}

std::string short_statistics(const Session & session, const Answer & answer) {
    const KvUsage usage = session.usage();
    std::string text = fmt::format("{} + {} tokens, {:.1f} tok/s, KV {} of {}", answer.n_prompt, answer.tokens.size(),
                                   tokens_per_second(answer.timings.n_decoded, answer.timings.decode_ms),
                                   format_bytes(usage.bytes_held), format_bytes(usage.bytes_full_f16));
    if (answer.finish == FinishReason::length || answer.finish == FinishReason::context ||
        answer.finish == FinishReason::kv_budget) {
        text += ", " + finish_text(answer.finish);
    }
    return text;
}

std::string budget_chart(const TerminalStyle & style, const RunSetup & setup, const Plan & plan,
                         const PromptShape & prompt) {
    const auto n_tokens = static_cast<size_t>(prompt.n_tokens);
    std::vector<std::string> labels;
    std::vector<LayerBudget> budgets;
    bool dropped = false;
    for (const LayerPlan & layer : plan.layers) {
        const LayerBudget budget = budget_of(layer);
        dropped = dropped || budget.least < n_tokens;
        std::string label =
            fmt::format("{:5.0f}  {:5.1f} %", budget.mean, 100.0 * budget.mean / static_cast<double>(n_tokens));
        if (layer.kept.size() > 1) {
            label += fmt::format("  {}..{}", budget.least, budget.most);
        }
        labels.push_back(label);
        budgets.push_back(budget);
    }
    if (!dropped) {
        return "";
    }
    size_t label_width = 0;
    for (const std::string & label : labels) {
        label_width = std::max(label_width, label.size());
    }
    const int cell_overhead = 6 + static_cast<int>(label_width);
    // Two columns where one would be long and both fit.
    const int columns = labels.size() > 12 && style.width >= 2 * (cell_overhead + 16) + 3 ? 2 : 1;
    const int bar_width =
        std::clamp((style.width - 3 * (columns - 1)) / columns - cell_overhead - 1, 8, columns == 1 ? 50 : 40);
    const size_t n_row = (labels.size() + static_cast<size_t>(columns) - 1) / static_cast<size_t>(columns);
    std::string text = style.bold("rows kept") +
                       fmt::format(" of the prompt's {}, per layer ({})\n", n_tokens, method_title(setup.method));
    for (size_t row = 0; row < n_row; ++row) {
        for (size_t il = row; il < labels.size(); il += n_row) {
            const std::string cell =
                fmt::format("{:>3} ", il) + bar(style, budgets[il].mean / static_cast<double>(n_tokens), bar_width);
            text += (il == row ? "" : "   ") + cell + " " +
                    (il + n_row < labels.size() ? fmt::format("{:<{}}", labels[il], label_width) : labels[il]);
        }
        text += "\n";
    }
    return text;
}

nlohmann::ordered_json turn_json(const RunSetup & setup, const Session & session, const Answer & answer, int turn) {
    using Json = nlohmann::ordered_json;
    const ModelInfo & model = setup.model;
    const KvUsage usage = session.usage();
    const Timings & times = answer.timings;
    Json json;
    json["turn"] = turn;
    json["answer"] = answer.text;
    json["tokens"] = answer.tokens;
    json["finish"] = finish_reason_name(answer.finish);
    json["prompt"] = {{"tokens", answer.n_prompt}, {"text", answer.n_text}, {"visual", answer.n_visual}};
    json["n_processed"] = session.n_processed();
    json["method"] = setup.method.method;
    json["keep"] = setup.method.options.profile ? Json(nullptr) : Json(setup.method.options.keep);
    json["params"] = setup.method.options.params;
    const auto heads = heads_of_types(usage);
    json["kv"] = {{"type", heads.size() > 1 ? std::string_view("mixed") : kv_type_name(heads.begin()->first)},
                  {"rotated", setup.kv_rot && (heads.size() > 1 || !heads.contains(KvType::f16))},
                  {"rows", usage.rows},
                  {"bytes_full", usage.bytes_full_f16},
                  {"bytes_held", usage.bytes_held},
                  {"bytes_freed", freed_bytes(usage)},
                  {"bytes_reserved", usage.bytes_reserved},
                  {"bytes_peak", session.peak_kv_bytes()},
                  {"bytes_scratch", session.scratch_bytes()},
                  {"rows_of", usage.rows_of}};
    for (const auto & [type, n] : heads) {
        json["kv"]["heads_of_type"][std::string(kv_type_name(type))] = n;
    }
    if (setup.capped) {
        json["kv"]["cap"] = {{"keep", session.method_options().keep},
                             {"prompt_rows", plan_rows(session)},
                             {"prompt_bytes", plan_bytes(session)}};
    }
    if (const Plan * plan = session.plan()) {
        Json plan_json = plan_to_json(setup.method.method, setup.method.options, session.prompt_shape(), *plan);
        for (const char * key : {"method", "keep", "kept"}) {  // said above, and too long for here
            plan_json.erase(key);
        }
        json["plan"] = std::move(plan_json);
    }
    json["images"] = Json::array();
    for (const ImagePlace & image : session.images()) {
        json["images"].push_back({{"name", image.name},
                                  {"first_position", image.first_position},
                                  {"n_tokens", image.n_tokens},
                                  {"nx", image.nx},
                                  {"ny", image.ny},
                                  {"grid_known", image.grid_known}});
    }
    json["timings"] = {{"vision_ms", times.vision_ms},
                       {"prefill_ms", times.prefill_ms},
                       {"plan_ms", times.plan_ms},
                       {"compact_ms", times.compact_ms},
                       {"decode_ms", times.decode_ms},
                       {"n_decoded", times.n_decoded},
                       {"prefill_tok_s", tokens_per_second(answer.n_prompt, times.prefill_ms)},
                       {"decode_tok_s", tokens_per_second(times.n_decoded, times.decode_ms)}};
    json["model"] = {{"path", setup.files.model.string()}, {"name", model.name},
                     {"architecture", model.architecture}, {"fingerprint", model.fingerprint},
                     {"n_layer", model.n_layer},           {"n_head", model.n_head},
                     {"n_head_kv", model.n_head_kv},       {"head_dim", model.head_dim},
                     {"weight_bytes", model.weight_bytes}, {"packed_bytes", model.packed_bytes}};
    return json;
}
