// SPDX-License-Identifier: MIT
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "cache_args.h"
#include "commands.h"
#include "conversation.h"
#include "engine/probe_recorder.h"
#include "grammar.h"
#include "interrupt.h"
#include "kvsieve/engine.h"
#include "kvsieve/error.h"
#include "kvsieve/log.h"
#include "method_options.h"
#include "model_args.h"
#include "output.h"
#include "question_image.h"
#include "terminal.h"
#include "usage.h"

using namespace kvsieve;
namespace fs = std::filesystem;

namespace {

constexpr int64_t kMaxInt = 2147483647;
constexpr size_t kMaxTextBytes = size_t{64} << 20U;

struct RunOptions {
    std::string prompt, system, overlay, grammar, learn;
    std::vector<std::string> images, stop;
    ModelArgs model;
    CacheArgs cache;
    GenerateOptions generate;
    MethodArgs method;
    bool interactive = false, json = false, verbose = false;
    bool has_prompt = false;
};

[[noreturn]] void refuse(const std::string & sentence) {
    throw Error(ErrorCode::invalid_argument, sentence);
}

std::string read_all(std::istream & in, const std::string & name) {
    std::string text(std::istreambuf_iterator<char>(in), {});
    if (in.bad()) {
        throw Error(ErrorCode::bad_input, name + " cannot be read");
    }
    if (text.size() > kMaxTextBytes) {
        throw Error(ErrorCode::too_large,
                    fmt::format("{} has {} bytes, expected at most {}", name, text.size(), kMaxTextBytes));
    }
    return text;
}

/// A grammar as typed, or the file behind an '@'.
std::string read_grammar(const std::string & text) {
    if (!text.starts_with('@')) {
        return text;
    }
    const std::string path = text.substr(1);
    std::ifstream file(path, std::ios::binary);
    if (!file || !fs::is_regular_file(path)) {
        throw Error(ErrorCode::bad_input, "the grammar file '" + path + "' cannot be read");
    }
    return read_all(file, path);
}

/// The first question; from standard input for "-". One newline at its end is no part of it.
std::string read_prompt(const RunOptions & options) {
    if (options.prompt != "-") {
        return options.prompt;
    }
    std::string text = read_all(std::cin, "the prompt from standard input");
    if (text.ends_with('\n')) {
        text.pop_back();
    }
    return text;
}

/// Everything that can be refused before a file is opened.
void check(const RunOptions & options) {
    if (!options.has_prompt && !options.interactive) {
        refuse("there is no question; give one with -p TEXT, -p - for standard input, or -i for a conversation");
    }
    if (options.prompt == "-" && options.interactive) {
        refuse("-p - and -i both read standard input; give only one of them");
    }
    if (options.has_prompt && options.prompt.empty()) {
        refuse("the question given with -p is empty");
    }
    options.model.check(!options.images.empty());
    if (!options.overlay.empty() && options.images.empty()) {
        refuse("--overlay draws on an image; give one with --image");
    }
    if (!options.learn.empty()) {
        if (options.interactive) {
            refuse("--learn records the answer to one question; leave out -i");
        }
        if (options.method.method != "full" || !options.method.scorer.empty() ||
            options.cache.decode_policy != "default") {
            refuse(
                "--learn records what answers look at when nothing was evicted; it needs --method full and the "
                "default decode policy");
        }
        check_writable(options.learn);
    }
}

void show_log() {
    set_log_callback([](LogLevel, std::string_view line) { fmt::print(stderr, "{}\n", line); }, LogLevel::info);
}

/// Adds the queries of an answer to those of the model, and writes them.
void learn(const std::shared_ptr<const Model> & model, const SessionOptions & options, const Turn & turn,
           const Answer & answer, const RunOptions & run, Progress & progress) {
    if (answer.tokens.empty()) {
        return;
    }
    progress.update("learning", -1.0);
    const InterruptGuard interrupts;
    ProbeRecorder recorder(model, options, kDefaultRowsOfAnAnswer);
    recorder.start_from_model();
    recorder.add_answer(turn, answer.tokens, until_interrupted());
    const ProbeData probes = recorder.probes(std::max(model->info().n_probe, kDefaultProbes), run.model.threads());
    write_probes(run.learn, probes);
    progress.hide();
    fmt::print(stderr, "{}: {} probes that stand for {} tokens of {} answers{}\n", run.learn, probes.n_probe,
               probes.n_rows, probes.n_samples, note_on_rows(probes.n_rows));
}

void run(const RunOptions & options) {
    check(options);
    if (options.verbose) {
        show_log();
    }
    RunSetup setup;
    SessionOptions session_options;
    setup.method = options.cache.resolve(options.method, session_options);
    setup.kv_rot = session_options.kv_rot;
    setup.capped = !options.cache.kv_tokens.empty() || !options.cache.kv_budget.empty();
    GenerateOptions generate = options.generate;
    generate.sampling.seed = static_cast<uint32_t>(setup.method.options.seed);
    generate.sampling.grammar = read_grammar(options.grammar);
    for (const std::string & stop : options.stop) {
        if (stop.empty()) {
            refuse("--stop takes a text, not an empty one");
        }
    }
    generate.stop = options.stop;

    ShowOptions show{.json = options.json, .short_stats = options.interactive, .overlay = options.overlay};
    if (!options.overlay.empty()) {
        check_writable(options.overlay);
    }
    for (const std::string & path : options.images) {
        Image image = load_question_image(path);
        if (!options.overlay.empty()) {
            show.overlay_images.emplace_back(image.width, image.height, std::move(image.rgb));
        }
    }
    const std::string prompt = read_prompt(options);

    const TerminalStyle style = TerminalStyle::of_stderr();
    Progress progress(style);
    progress.update("loading", -1.0);
    setup.files = options.model.files();
    if (!options.learn.empty() && options.model.probes.empty() && fs::exists(options.learn)) {
        setup.files.probes = options.learn;
    }
    const auto model = Model::load(setup.files);
    setup.model = model->info();
    session_options.n_ctx = options.model.n_ctx;
    session_options.system = options.system;
    session_options.chat_template = options.model.chat_template;
    Session session(model, session_options);
    progress.hide();
    check_grammar(*model, generate.sampling.grammar);

    Conversation conversation(setup, std::move(session), generate, std::move(show), style, progress);
    std::vector<fs::path> images(options.images.begin(), options.images.end());
    if (options.has_prompt) {
        const Turn turn{.text = prompt, .images = std::exchange(images, {})};
        conversation.ask(turn);
        if (!options.learn.empty()) {
            learn(model, session_options, turn, conversation.last_answer(), options, progress);
        }
    }
    if (options.interactive) {
        conversation.interact(std::move(images));
    }
}

}  // namespace

void add_run_command(CLI::App & app) {
    CLI::App * const command = app.add_subcommand("run", "Answer a question about images from a compressed KV cache");
    const auto o = std::make_shared<RunOptions>();
    SamplingOptions & sampling = o->generate.sampling;

    const auto text = [&](const std::string & names, std::string & target, const std::string & type,
                          const std::string & help) {
        return command->add_option(names, target, help)->type_name(type);
    };
    const auto group = [&](const std::string & name, std::initializer_list<CLI::Option *> options) {
        for (CLI::Option * option : options) {
            option->group(name);
        }
    };
    const auto several = [&](const std::string & names, std::vector<std::string> & target, const std::string & type,
                             const std::string & help) {
        return command->add_option(names, target, help)
            ->type_name(type)
            ->expected(1)
            ->allow_extra_args(false)
            ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    };
    CLI::Option * const prompt =
        text("-p,--prompt", o->prompt, "TEXT",
             "The question; '<image>' in it marks an image's place; '-' reads it from standard input");
    group("Question",
          {
              prompt,
              several("--image", o->images, "FILE", "An image; may be repeated"),
              text("--system", o->system, "TEXT", "System message"),
              command->add_flag("-i,--interactive", o->interactive,
                                "A conversation: questions from standard input, answered from the compressed cache"),
          });
    o->model.add_to(*command);
    o->cache.add_to(*command, o->method);
    group(
        "Answer",
        {
            add_integer(*command, "-n,--n-predict", o->generate.n_predict, 0, kMaxInt, "At most so many tokens"),
            several("--stop", o->stop, "TEXT", "Ends the answer; may be repeated"),
            text("--grammar", o->grammar, "GBNF", "Grammar of the answer, or @FILE"),
            add_number(*command, "--temp", sampling.temp, 0, 100, "Temperature; 0 = greedy"),
            add_integer(*command, "--top-k", sampling.top_k, 0, kMaxInt, "Draw from so many likeliest tokens; 0 = all"),
            add_number(*command, "--top-p", sampling.top_p, 0, 1,
                       "Draw from the likeliest tokens with this share; 1 = all"),
            add_number(*command, "--min-p", sampling.min_p, 0, 1, "Least probability relative to the likeliest token"),
            command->get_option("--seed")->description("Seed of the sampler, and of methods that choose at random"),
        });
    group("Output",
          {
              command->add_flag("--json", o->json, "Only a JSON object for each answer on standard output"),
              text("--overlay", o->overlay, "PNG", "Draw which visual tokens were kept"),
              text("--learn", o->learn, "FILE",
                   "With --method full: add the queries of this answer to a file of probes for method sieve"),
              command->add_flag("-v,--verbose", o->verbose, "Messages of the libraries below on standard error"),
          });
    command->callback([o, prompt] {
        o->has_prompt = prompt->count() > 0;
        run(*o);
    });
}
