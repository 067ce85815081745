// SPDX-License-Identifier: MIT
// kvsieve profile: budgets per layer, averaged over calibration samples (METHODS 1.4 as docs/methods.md states it).
#include "io/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
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
    int32_t n_probe = kDefaultProbes, n_predict = 256, max_rows = kDefaultRowsOfAnAnswer, limit = 0;
    std::vector<const CLI::Option *> of_sieve;  ///< options that only sieve takes
};

[[noreturn]] void refuse(const std::string & sentence) {
    throw Error(ErrorCode::invalid_argument, sentence);
}

/// The samples that were chosen, and what takes the first question of each to a session or a recorder.
class Calibration {
  public:
    explicit Calibration(const ProfileArgs & args)
        : data_(read_data(args.data, {.skip_bad = false, .prompts_only = true})),
          chosen_(select_samples(data_.samples.size(), static_cast<size_t>(args.limit), parse_shard(args.shard))) {
        if (chosen_.empty()) {
            refuse(fmt::format("--shard {} leaves none of {} samples", args.shard, data_.samples.size()));
        }
        args.model.check(std::ranges::any_of(data_.samples, [](const Sample & s) { return !s.images.empty(); }));
        check_writable(args.output);
        progress_.update("loading", -1.0);
    }

    /// Calls `with_turn(Turn)` or `with_tokens(span)` for each but the first n_done.
    void for_each(const char * what, const auto & with_turn, const auto & with_tokens, size_t n_done = 0) {
        for (const size_t i : std::span(chosen_).subspan(std::min(n_done, chosen_.size()))) {
            progress_.update(what, static_cast<double>(n_done++) / static_cast<double>(chosen_.size()));
            const Sample & sample = data_.samples[i];
            const Question & first = sample.turns[0];
            if (!first.prompt_tokens.empty()) {
                with_tokens(std::span<const int32_t>(first.prompt_tokens));
                continue;
            }
            for (const fs::path & image : sample.images) {
                static_cast<void>(load_question_image(image));
            }
            with_turn(Turn{first.prompt, sample.images});
        }
    }
    [[nodiscard]] const std::string & sha256() const { return data_.sha256; }
    [[nodiscard]] size_t size() const { return chosen_.size(); }
    [[nodiscard]] Progress & progress() { return progress_; }

  private:
    DataSet data_;
    std::vector<size_t> chosen_;
    Progress progress_{TerminalStyle::of_stderr()};
};

/// What was recorded of the samples that are done, beside the output while a run lasts: a line that says what of, then
/// for each sample the number of its bytes and these. A run that was stopped goes on from it.
class PartFile {
  public:
    PartFile(const std::string & output, const std::string & key) : path_(output + ".part") {
        std::string all;
        if (fs::exists(path_)) {
            std::ifstream file(path_, std::ios::binary);
            all.assign(std::istreambuf_iterator<char>(file), {});
        }
        const std::string head = key + "\n";
        if (!all.starts_with(head) && !head.starts_with(all)) {
            refuse(path_ + " is of a run with another model, other data or other options; remove it or name another " +
                   "output");
        }
        size_t whole = all.starts_with(head) ? head.size() : 0;
        for (uint64_t n = 0; whole > 0 && all.size() - whole >= sizeof n; whole += sizeof n + n) {
            std::memcpy(&n, all.data() + whole, sizeof n);
            if (n > all.size() - whole - sizeof n) {
                break;  // the machine stopped while it was written
            }
            samples_.push_back(all.substr(whole + sizeof n, n));
        }
        if (!all.empty()) {
            fs::resize_file(path_, whole);
        }
        out_.open(path_, std::ios::binary | std::ios::app);
        if (whole == 0) {
            write(head);
        }
    }
    [[nodiscard]] const std::vector<std::string> & samples() const { return samples_; }

    void add(const std::string & bytes) {
        const uint64_t n = bytes.size();
        write(std::string(reinterpret_cast<const char *>(&n), sizeof n) + bytes);
    }
    void remove() {
        out_.close();
        fs::remove(path_);
    }

  private:
    void write(const std::string & bytes) {
        if (!(out_ << bytes) || !out_.flush()) {
            throw Error(ErrorCode::io, path_ + " cannot be written");
        }
    }

    std::string path_;
    std::vector<std::string> samples_;
    std::ofstream out_;
};

/// What the recorded queries depend on.
std::string key_of(const ProfileArgs & args, const ModelInfo & info, const std::string & data_sha256) {
    const nlohmann::ordered_json key = {{"kvsieve_probes_part", 1},
                                        {"model", info.fingerprint},
                                        {"vision", info.vision_fingerprint},
                                        {"data_sha256", data_sha256},
                                        {"limit", args.limit},
                                        {"shard", args.shard},
                                        {"n_predict", args.n_predict},
                                        {"max_rows", args.max_rows},
                                        {"system", args.system},
                                        {"n_ctx", args.model.n_ctx},
                                        {"chat_template", args.model.chat_template}};
    return key.dump();
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

SessionOptions session_options(const ProfileArgs & args) {
    SessionOptions options;
    options.n_ctx = args.model.n_ctx;
    options.chat_template = args.model.chat_template;
    options.system = args.system;
    return options;
}

/// Probe queries of the model's own answers, for method sieve.
void record_probes(const ProfileArgs & args) {
    if (!args.method.keep.empty() || !args.method.set.empty()) {
        refuse("the probes of sieve do not depend on --keep or --set; give them to the command that uses the probes");
    }
    Calibration samples(args);
    const auto model = Model::load(args.model.files());
    ProbeRecorder recorder(model, session_options(args), args.max_rows);
    const Callbacks callbacks = until_interrupted();
    const InterruptGuard interrupts;
    const GenerateOptions generate{.n_predict = args.n_predict, .stop = {}, .sampling = {}};
    PartFile part(args.output, key_of(args, model->info(), samples.sha256()));
    for (const std::string & bytes : part.samples()) {
        if (!recorder.restore(bytes)) {
            refuse(args.output + ".part is damaged; remove it");
        }
    }
    if (!part.samples().empty()) {
        samples.progress().hide();
        fmt::print(stderr, "{} of {} answers were there\n", part.samples().size(), samples.size());
    }
    const auto record = [&](const auto & prompt) {
        recorder.add(prompt, generate, callbacks);
        part.add(recorder.latest());
    };
    samples.for_each("answers", record, record, part.samples().size());
    samples.progress().update("clusters", -1.0);
    ProbeData probes = recorder.probes(args.n_probe, args.model.threads());
    probes.data_sha256 = samples.sha256();
    write_probes(args.output, probes);
    part.remove();
    samples.progress().hide();
    fmt::print(stderr, "{}: {} answers, {} tokens, {} probes for each of {} layers x {} heads{}\n", args.output,
               probes.n_samples, recorder.n_rows(), probes.n_probe, probes.n_layer, probes.n_head,
               note_on_rows(probes.n_rows));
}

/// The mean of a method's budgets per layer.
void average_budgets(const ProfileArgs & args) {
    const MethodChoice choice = args.method.resolve();
    if (choice.options.profile) {
        refuse("kvsieve profile makes a profile; give --keep, not --profile");
    }
    if (!method_info(choice.method).takes_profile) {
        refuse("method " + choice.method + " takes no profile; one that does is prefixkv");
    }
    for (const CLI::Option * const option : args.of_sieve) {
        if (option->count() > 0) {
            refuse(option->get_name() + " is an option of sieve's probes; " + choice.method + " generates no answers");
        }
    }
    Calibration samples(args);
    const auto model = Model::load(args.model.files());
    SessionOptions options = session_options(args);
    options.method = choice.method;
    options.method_options = choice.options;
    options.force_compaction = true;
    Session session(model, options);
    const Callbacks callbacks = until_interrupted();
    const InterruptGuard interrupts;
    Profile out{.forget = std::vector<double>(static_cast<size_t>(model->info().n_layer), 0.0),
                .model_fingerprint = model->info().fingerprint,
                .method = choice.method};
    const auto add_plan = [&] {
        const std::vector<double> forget = forgotten(*session.plan(), session.prompt_shape());
        std::ranges::transform(out.forget, forget, out.forget.begin(), std::plus<>());
        session.reset();
    };
    samples.for_each(
        "calibration",
        [&](const Turn & turn) {
            static_cast<void>(session.feed(turn, true, callbacks));
            add_plan();
        },
        [&](std::span<const int32_t> tokens) {
            static_cast<void>(session.feed(tokens));
            add_plan();
        });
    double mean = 0.0;
    for (double & forget : out.forget) {
        forget /= static_cast<double>(samples.size());
        mean += forget / static_cast<double>(out.forget.size());
    }
    write_profile(args.output, out);
    samples.progress().hide();
    fmt::print(stderr, "{}: {} samples, {} layers, {:.2f} % forgotten on average\n", args.output, samples.size(),
               out.forget.size(), 100.0 * mean);
}

}  // namespace

void add_profile_command(CLI::App & app) {
    CLI::App * const command = app.add_subcommand(
        "profile", "Calibrate a method: budgets averaged over samples, or the probe queries of sieve");
    const auto args = std::make_shared<ProfileArgs>();
    args->method.method = "prefixkv";
    args->model.add_to(*command);
    command->add_option("--data", args->data, "Samples: a data set as of eval; answers and ids may be missing")
        ->type_name("FILE")
        ->required();
    command->add_option("--system", args->system, "System message")->type_name("TEXT");
    command->add_option("-o,--output", args->output, "The profile: JSON, or the probes of sieve as GGUF")
        ->type_name("FILE")
        ->required();
    add_integer(*command, "--limit", args->limit, 0, INT32_MAX, "Samples, spread evenly over the set; 0 = all");
    command->add_option("--shard", args->shard, "Only every N-th sample from the I-th on")->type_name("I/N");
    args->of_sieve = {
        add_integer(*command, "--n-probe", args->n_probe, 1, 65536, "sieve: probe queries for each layer and head"),
        add_integer(*command, "-n,--n-predict", args->n_predict, 1, INT32_MAX, "sieve: most tokens of an answer"),
        add_integer(*command, "--max-rows", args->max_rows, 1, INT32_MAX, "sieve: most tokens recorded of one answer")};
    args->method.add_to(*command);
    command->get_option("--method")->default_str(args->method.method);
    command->callback([args] { args->method.method == "sieve" ? record_probes(*args) : average_budgets(*args); });
}
