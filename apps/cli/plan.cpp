// SPDX-License-Identifier: MIT
// kvsieve plan: what a method would keep, from dumped observations; no model.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>

#include "commands.h"
#include "io/observation_file.h"
#include "io/plan_json.h"
#include "kvsieve/error.h"
#include "method_options.h"
#include "policy/number.h"
#include "print.h"

using namespace kvsieve;

namespace {

constexpr uint64_t kMaxDecodeSteps = 1'000'000;

struct PlanArgs {
    std::string file, decode_steps;
    MethodArgs method;
    bool json = false;
};

std::optional<SimulatedDecode> simulate(const std::string & steps, const PromptShape & prompt, const Plan & plan) {
    if (steps.empty()) {
        return std::nullopt;
    }
    const auto n = parse_unsigned(steps);
    if (!n || *n > kMaxDecodeSteps) {
        throw Error(ErrorCode::invalid_argument, "--decode-steps is '" + steps + "'; expected an integer from 0 to " +
                                                     std::to_string(kMaxDecodeSteps));
    }
    const auto n_steps = static_cast<int32_t>(*n);
    return SimulatedDecode{n_steps, simulate_decode(plan, prompt.n_tokens, n_steps)};
}

std::string summary(const MethodChoice & choice, const PromptShape & prompt, const Plan & plan,
                    const std::optional<SimulatedDecode> & decode) {
    const auto n_tokens = static_cast<size_t>(prompt.n_tokens);
    size_t total = 0, n_list = 0;
    std::string lines;
    for (size_t il = 0; il < plan.layers.size(); ++il) {
        std::vector<size_t> sizes;
        for (const auto & kept : plan.layers[il].kept) {
            sizes.push_back(kept.size());
            total += kept.size();
            ++n_list;
        }
        lines += fmt::format("layer {:3}  {} of {} rows", il, fmt::join(sizes, " "), n_tokens);
        if (decode) {
            lines += fmt::format("; after {} tokens {} rows", decode->n_steps, decode->trace.final_len[il]);
        }
        lines += "\n";
    }
    const std::string budget = choice.options.profile ? "a profile" : "keep " + number_text(choice.options.keep);
    return fmt::format("{} with {}: {} of {} rows kept ({:.1f} %), {} layers, {} prompt tokens ({} visual)\n{}",
                       choice.method, budget, total, n_list * n_tokens,
                       100.0 * static_cast<double>(total) / static_cast<double>(n_list * n_tokens), prompt.n_layer,
                       n_tokens, std::count(prompt.visual_mask.begin(), prompt.visual_mask.end(), 1), lines);
}

void run_plan(const PlanArgs & args) {
    const MethodChoice choice = args.method.resolve();
    const auto method = make_method(choice.method, choice.options);
    const ObservationFile file(args.file, choice.method, method->traits());
    const Plan plan = plan_from_file(*method, file);
    const auto decode = simulate(args.decode_steps, file.prompt(), plan);
    print_out(args.json ? plan_to_json(choice.method, choice.options, file.prompt(), plan, decode).dump() + "\n"
                        : summary(choice, file.prompt(), plan, decode));
}

}  // namespace

void add_plan_command(CLI::App & app) {
    CLI::App * const command = app.add_subcommand("plan", "Plan from dumped observations, without a model");
    const auto args = std::make_shared<PlanArgs>();
    command->add_option("file", args->file, "Observations (obs.npz)")->type_name("FILE")->required();
    args->method.add_to(*command, /*method_required=*/true);
    command->add_option("--decode-steps", args->decode_steps, "Also play so many generated tokens against the plan")
        ->type_name("N");
    command->add_flag("--json", args->json, "Print the plan as a JSON object");
    command->callback([args] { run_plan(*args); });
}
