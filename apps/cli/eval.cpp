// SPDX-License-Identifier: MIT
// kvsieve eval: methods x budgets x KV types on a data set, into a results file.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "commands.h"
#include "eval/data.h"
#include "eval/grid.h"
#include "eval/results.h"
#include "format.h"
#include "interrupt.h"
#include "kvsieve/error.h"
#include "model_args.h"
#include "policy/clock.h"
#include "runner/evaluation.h"
#include "terminal.h"
#include "usage.h"
#include "version.h"

using namespace kvsieve;

namespace {

constexpr size_t kOverlays = 6;

struct EvalArgs {
    ModelArgs model;
    std::string data, output, system;
    std::string metrics = "ppl,exact_match";
    std::string methods, keeps, budgets, kv_types = "f16";
    std::string shard = "1/1";
    int32_t limit = 0, n_predict = 64;
    bool skip_bad = false;
};

/// The options that decide results, as they can be typed again.
std::string command_of(const EvalArgs & args) {
    std::string out = fmt::format("kvsieve eval --metrics {} --methods {}", args.metrics, args.methods);
    const auto add = [&](const char * option, const std::string & value) {
        if (!value.empty()) {
            out += fmt::format(" {} {}", option, value);
        }
    };
    add("--keep", args.keeps);
    add("--budget", args.budgets);
    add("--kv-type", args.kv_types);
    add("--template", args.model.chat_template);
    add("--system", args.system.empty() ? "" : fmt::format("'{}'", args.system));
    add("--limit", args.limit > 0 ? std::to_string(args.limit) : "");
    add("-c", args.model.n_ctx > 0 ? std::to_string(args.model.n_ctx) : "");
    return out + fmt::format(" -n {}", args.n_predict);
}

std::string shares_of(const MeasureTimes & times) {
    const double all = times.vision + times.prefill + times.plan + times.compact + times.perplexity + times.generate;
    const auto share = [&](double ms) { return all > 0.0 ? 100.0 * ms / all : 0.0; };
    return fmt::format(
        "images {:.0f} %, prefill {:.0f} %, plans {:.0f} %, caches {:.0f} %, perplexity {:.0f} %, generation {:.0f} %",
        share(times.vision), share(times.prefill), share(times.plan), share(times.compact), share(times.perplexity),
        share(times.generate));
}

void run_eval(EvalArgs & args) {
    const std::vector<CellKey> grid = parse_grid({args.methods, args.keeps, args.budgets, args.kv_types});
    EvaluationOptions options;
    options.measure.metrics = parse_metrics(args.metrics);
    options.measure.n_ctx = args.model.n_ctx;
    options.measure.system = args.system;
    options.measure.chat_template = args.model.chat_template;
    options.measure.n_predict = args.n_predict;
    options.skip_bad = args.skip_bad;
    const Shard shard = parse_shard(args.shard);
    const DataSet data = read_data(args.data, {.skip_bad = args.skip_bad, .prompts_only = false});
    for (const BadLine & line : data.bad) {
        fmt::print(stderr, "left out: {}\n", line.why);
    }
    args.model.check(std::ranges::any_of(data.samples, [](const Sample & s) { return !s.images.empty(); }));
    const auto limit = static_cast<size_t>(args.limit);
    const std::vector<size_t> chosen = select_samples(data.samples.size(), limit, shard);
    const std::vector<size_t> whole = select_samples(data.samples.size(), limit, {});  // of all shards
    for (const size_t i : whole) {
        if (!data.samples[i].images.empty() && options.overlays.size() < kOverlays) {
            options.overlays.push_back(i);
        }
    }

    const TerminalStyle style = TerminalStyle::of_stderr();
    Progress progress(style);
    progress.update("loading", -1.0);
    ModelOptions files = args.model.files();
    options.n_threads = args.model.threads();
    files.n_threads = 1;  // samples run beside each other, each on one thread
    const auto model = Model::load(files);
    // Refuses a type or a profile that does not fit the model, before any work; each of them once.
    std::set<std::pair<std::map<std::string, std::string>, std::string>> checked;
    for (const CellKey & key : grid) {
        if (checked.emplace(key.params, key.kv_type).second) {
            SessionOptions session;
            session.method = registered_method(key);
            session.method_options = method_options(key);
            session.kv_type = parse_kv_type(cell_rows(key.kv_type).type);
            session.chat_template = args.model.chat_template;
            static_cast<void>(Session(model, session));
        }
    }
    const ModelInfo & info = model->info();
    ResultsHeader header{.version = KVSIEVE_VERSION,
                         .command = command_of(args),
                         .model = info.name,
                         .model_fingerprint = info.fingerprint,
                         .data = data.path.filename().string(),
                         .data_sha256 = data.sha256,
                         .n_samples = static_cast<int64_t>(whole.size()),
                         .n_layer = info.n_layer,
                         .n_head_kv = info.n_head_kv,
                         .metrics = options.measure.metrics,
                         .grid = grid};
    if (info.has_vision) {
        header.model_fingerprint += "+" + info.vision_fingerprint;
    }
    if (!info.probes_fingerprint.empty()) {
        header.model_fingerprint += "+" + info.probes_fingerprint;
    }
    ResultsFile file(args.output, header);

    using Clock = std::chrono::steady_clock;
    const auto start = Clock::now();
    EvaluationCallbacks callbacks;
    callbacks.on_progress = [&](size_t n_done, size_t n_all) {
        const double share = static_cast<double>(n_done) / static_cast<double>(n_all);
        progress.update("cells", share);
    };
    callbacks.on_bad = [&](const std::string & why) {
        progress.hide();
        fmt::print(stderr, "left out: {}\n", why);
    };
    callbacks.is_cancelled = [] { return InterruptGuard::requested(); };
    const InterruptGuard interrupts;
    const EvaluationSummary summary = evaluate(model, data, chosen, grid, file, options, callbacks);
    progress.hide();
    const double seconds = ms_since(start) / 1000.0;
    fmt::print(stderr, "{}: {} samples x {} cells in {}", args.output, summary.n_measured, grid.size(),
               format_duration(seconds));
    if (summary.n_there > 0) {
        fmt::print(stderr, ", {} samples were there", summary.n_there);
    }
    if (const size_t n_bad = summary.n_bad + data.bad.size(); n_bad > 0) {
        fmt::print(stderr, ", {} left out", n_bad);
    }
    fmt::print(stderr, "\n");
    if (summary.n_measured > 0) {
        fmt::print(stderr, "time: {}\n", shares_of(summary.times));
    }
}

}  // namespace

void add_eval_command(CLI::App & app) {
    CLI::App * const command = app.add_subcommand("eval", "Measure methods, budgets and KV types on a data set");
    const auto args = std::make_shared<EvalArgs>();
    args->model.add_to(*command);
    const auto text = [&](const char * names, std::string & target, const char * type, const char * help) {
        return command->add_option(names, target, help)->type_name(type);
    };
    text("--data", args->data, "FILE", "Samples, one JSON object a line (docs/eval.md)")->required();
    text("--metrics", args->metrics, "LIST", "ppl, rouge_l, exact_match, anls, relaxed_accuracy, exact_match_next")
        ->capture_default_str();
    text("--methods", args->methods, "LIST",
         "Methods with parameters: prefixkv,aircache:alpha=0.8; all; oracle: sieve that sees the true answer")
        ->required();
    text("--keep", args->keeps, "LIST", "Fractions of the KV entries that methods keep");
    text("--budget", args->budgets, "LIST", "Shares of the full f16 bytes; keep is solved for each sample");
    text("--kv-type", args->kv_types, "LIST",
         "Types of the rows: f16, q8_0, q4_0, q8_0-unrotated, q4_0-unrotated, auto")
        ->capture_default_str();
    text("--system", args->system, "TEXT", "System message");
    add_integer(*command, "-n,--n-predict", args->n_predict, 1, INT32_MAX, "Most tokens of a generated answer");
    add_integer(*command, "--limit", args->limit, 0, INT32_MAX, "Samples, spread evenly over the set; 0 = all");
    text("--shard", args->shard, "I/N", "Only every N-th sample from the I-th on")->capture_default_str();
    command->add_flag("--skip-bad", args->skip_bad, "Leave out and count samples that cannot be measured");
    text("-o,--output", args->output, "FILE", "Results; a file that is there is gone on with")->required();
    command->callback([args] { run_eval(*args); });
}
