// SPDX-License-Identifier: MIT
#include "io/plan_json.h"

namespace kvsieve {

nlohmann::ordered_json plan_to_json(std::string_view method, const MethodOptions & options, const PromptShape & prompt,
                                    const Plan & plan, const std::optional<SimulatedDecode> & decode) {
    nlohmann::ordered_json out;
    out["method"] = method;
    out["keep"] = nullptr;
    if (options.profile) {
        out["layer_ratios"] = options.profile->forget;
    } else {
        out["keep"] = options.keep;
    }
    for (const auto & [name, value] : options.params) {
        out["params"][name] = value;
    }
    out["n_kv"] = prompt.n_tokens;
    out["n_layer"] = prompt.n_layer;
    out["keeps_everything"] = plan.keeps_everything;
    auto & kept = out["kept"] = nlohmann::ordered_json::array();
    auto & n_kept = out["n_kept"] = nlohmann::ordered_json::array();
    for (const LayerPlan & layer : plan.layers) {
        if (layer.kept.size() == 1 && !plan.per_head) {
            kept.push_back(layer.kept[0]);
            n_kept.push_back(layer.kept[0].size());
            continue;
        }
        kept.push_back(layer.kept);
        auto & sizes = n_kept.emplace_back(nlohmann::ordered_json::array());
        for (const auto & head : layer.kept) {
            sizes.push_back(head.size());
        }
    }
    for (size_t il = 0; il < plan.layers.size() && !plan.layers[il].types.empty(); ++il) {
        auto & types = out["row_types"].emplace_back(nlohmann::ordered_json::array());
        for (const KvType type : plan.layers[il].types) {
            types.push_back(kv_type_name(type));
        }
    }
    for (const auto & [name, value] : plan.extra) {
        std::visit([&, key = name](const auto & x) { out[key] = x; }, value);
    }
    if (decode) {
        auto removed = nlohmann::ordered_json::array();
        for (const auto & layer : decode->trace.removed) {
            auto & list = removed.emplace_back(nlohmann::ordered_json::array());
            for (const DecodeRemoval & removal : layer) {
                list.push_back({removal.step, removal.position});
            }
        }
        out["decode"] = {{"steps", decode->n_steps},
                         {"removed_step_and_position", std::move(removed)},
                         {"final_len", decode->trace.final_len}};
    }
    return out;
}

}  // namespace kvsieve
