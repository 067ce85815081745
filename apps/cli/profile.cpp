// SPDX-License-Identifier: MIT
// kvsieve profile: budgets per layer, averaged over calibration samples (METHODS 1.4 as docs/methods.md states it).
#include "io/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <variant>
#include <vector>

#include "commands.h"
#include "engine/probe_recorder.h"
#include "eval/data.h"
#include "interrupt.h"
#include "kvsieve/error.h"
#include "method_options.h"
#include "model_args.h"
#include "output.h"
#include "question_image.h"
#include "terminal.h"
#include "usage.h"

using namespace kvsieve;
namespace fs = std::filesystem;

namespace {

struct ProfileArgs {
    ModelArgs model;
    MethodArgs method;
    std::string data, output, system, shard = "1/1";
    int32_t n_probe = 256, n_predict = 256, max_rows = 64, limit = 0;
};

[[noreturn]] void refuse(const std::string & sentence) {
    throw Error(ErrorCode::bad_input, sentence);
}

/// Lines {"prompt": TEXT, "image": FILE} (or "images": [FILE, ...]); paths are relative to the file.
std::vector<Turn> read_samples(const fs::path & path) {
    std::ifstream file(path, std::ios::binary);
    if (!file || !fs::is_regular_file(path)) {
        refuse("the calibration samples '" + path.string() + "' cannot be read");
    }
    std::vector<Turn> out;
    size_t n_line = 0;
    for (std::string line; std::getline(file, line);) {
        ++n_line;
        if (line.find_first_not_of(" \t\r") == std::string::npos) {
            continue;
        }
        const std::string where = fmt::format("{}, line {}", path.string(), n_line);
        const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
        if (!json.is_object() || !json.contains("prompt") || !json["prompt"].is_string()) {
            refuse(where + ": expected a JSON object with a text named prompt");
        }
        Turn turn{.text = json["prompt"].get<std::string>(), .images = {}};
        nlohmann::json images = json.value("images", nlohmann::json::array());
        if (json.contains("image")) {
            images.push_back(json["image"]);
        }
        if (!images.is_array() ||
            std::any_of(images.begin(), images.end(), [](const auto & image) { return !image.is_string(); })) {
            refuse(where + ": expected the name of a file as image, or a list of such names as images");
        }
        for (const auto & image : images) {
            turn.images.push_back(path.parent_path() / image.get<std::string>());
        }
        out.push_back(std::move(turn));
    }
    if (out.empty()) {
        refuse(path.string() + " has no samples, expected one JSON object per line");
    }
    return out;
}

/// f_l / T of a plan.
std::vector<double> forgotten(const Plan & plan, const PromptShape & prompt) {
    std::vector<double> out(plan.layers.size(), 0.0);
    const auto found = plan.extra.find("forget");
    if (!plan.keeps_everything && found != plan.extra.end()) {
        const auto & forget = std::get<std::vector<int32_t>>(found->second);
        std::transform(forget.begin(), forget.end(), out.begin(),
                       [&](int32_t f) { return static_cast<double>(f) / prompt.n_tokens; });
    }
    return out;
}

/// Probe queries of the model's own answers, for method sieve.
void record_probes(const ProfileArgs & args) {
    const DataSet data = read_data(args.data, {.skip_bad = false, .answers_needed = false});
    args.model.check(std::ranges::any_of(data.samples, [](const Sample & s) { return !s.images.empty(); }));
    check_writable(args.output);
    Progress progress(TerminalStyle::of_stderr());
    progress.update("loading", -1.0);
    const auto model = Model::load(args.model.files());
    SessionOptions options;
    options.n_ctx = args.model.n_ctx;
    options.chat_template = args.model.chat_template;
    options.system = args.system;
    ProbeRecorder recorder(model, options, args.max_rows);
    Callbacks callbacks;
    callbacks.is_cancelled = [] { return InterruptGuard::requested(); };
    const InterruptGuard interrupts;
    const GenerateOptions generate{.n_predict = args.n_predict, .stop = {}, .sampling = {}};
    const auto chosen = select_samples(data.samples.size(), static_cast<size_t>(args.limit), parse_shard(args.shard));
    size_t n_done = 0;
    for (const size_t i : chosen) {
        progress.update("answers", static_cast<double>(n_done++) / static_cast<double>(chosen.size()));
        const Sample & sample = data.samples[i];
        const Question & first = sample.turns[0];
        if (first.prompt_tokens.empty()) {
            recorder.add(Turn{first.prompt, sample.images}, generate, callbacks);
        } else {
            recorder.add(first.prompt_tokens, generate, callbacks);
        }
    }
    progress.update("clusters", -1.0);
    ProbeData probes = recorder.probes(args.n_probe, args.model.threads());
    probes.data_sha256 = data.sha256;
    write_probes(args.output, probes);
    progress.hide();
    fmt::print(stderr, "{}: {} answers, {} tokens, {} probes for each of {} layers x {} heads\n", args.output,
               probes.n_samples, recorder.n_rows(), probes.n_probe, probes.n_layer, probes.n_head);
}

void profile(const ProfileArgs & args) {
    if (args.method.method == "sieve") {
        return record_probes(args);
    }
    const MethodChoice choice = args.method.resolve();
    if (!method_info(choice.method).takes_profile || choice.options.profile) {
        throw Error(ErrorCode::invalid_argument,
                    choice.options.profile
                        ? "kvsieve profile makes a profile; give --keep, not --profile"
                        : "method " + choice.method + " takes no profile; one that does is prefixkv");
    }
    const std::vector<Turn> samples = read_samples(args.data);
    args.model.check(std::any_of(samples.begin(), samples.end(), [](const Turn & s) { return !s.images.empty(); }));
    check_writable(args.output);
    const TerminalStyle style = TerminalStyle::of_stderr();
    Progress progress(style);
    progress.update("loading", -1.0);
    const auto model = Model::load(args.model.files());
    SessionOptions options;
    options.method = choice.method;
    options.method_options = choice.options;
    options.n_ctx = args.model.n_ctx;
    options.chat_template = args.model.chat_template;
    options.system = args.system;
    options.force_compaction = true;
    Session session(model, options);
    Callbacks callbacks;
    callbacks.is_cancelled = [] { return InterruptGuard::requested(); };
    const InterruptGuard interrupts;
    std::vector<double> sum(static_cast<size_t>(model->info().n_layer), 0.0);
    size_t n_done = 0;
    for (const Turn & sample : samples) {
        progress.update("calibration", static_cast<double>(n_done) / static_cast<double>(samples.size()));
        session.reset();
        for (const fs::path & image : sample.images) {
            static_cast<void>(load_question_image(image));
        }
        static_cast<void>(session.feed(sample, true, callbacks));
        const std::vector<double> forget = forgotten(*session.plan(), session.prompt_shape());
        std::transform(forget.begin(), forget.end(), sum.begin(), sum.begin(), std::plus<>());
        ++n_done;
    }
    progress.hide();
    Profile out{.forget = sum, .model_fingerprint = model->info().fingerprint, .method = choice.method};
    double mean = 0.0;
    for (double & forget : out.forget) {
        forget /= static_cast<double>(samples.size());
        mean += forget / static_cast<double>(out.forget.size());
    }
    write_profile(args.output, out);
    fmt::print(stderr, "{}: {} samples, {} layers, {:.2f} % forgotten on average\n", args.output, samples.size(),
               out.forget.size(), 100.0 * mean);
}

}  // namespace

void add_profile_command(CLI::App & app) {
    CLI::App * const command =
        app.add_subcommand("profile", "Average a method's budgets per layer over calibration samples");
    const auto args = std::make_shared<ProfileArgs>();
    args->method.method = "prefixkv";
    args->model.add_to(*command);
    command->add_option("--data", args->data, "Samples: lines {\"prompt\": TEXT, \"image\": FILE}")
        ->type_name("FILE")
        ->required();
    command->add_option("--system", args->system, "System message")->type_name("TEXT");
    command->add_option("-o,--output", args->output, "The profile: JSON, or the probes of sieve as GGUF")
        ->type_name("FILE")
        ->required();
    add_integer(*command, "--n-probe", args->n_probe, 1, 65536, "sieve: probe queries for each layer and head");
    add_integer(*command, "-n,--n-predict", args->n_predict, 1, INT32_MAX, "sieve: most tokens of an answer");
    add_integer(*command, "--max-rows", args->max_rows, 1, INT32_MAX, "sieve: most tokens recorded of one answer");
    add_integer(*command, "--limit", args->limit, 0, INT32_MAX, "sieve: samples, spread evenly over the set; 0 = all");
    command->add_option("--shard", args->shard, "sieve: only every N-th sample from the I-th on")->type_name("I/N");
    args->method.add_to(*command);
    command->get_option("--method")->default_str(args->method.method);
    command->callback([args] { profile(*args); });
}
