// SPDX-License-Identifier: MIT
// kvsieve observe: what methods see of a prompt, as a file that kvsieve plan and numpy read.
#include "engine/observe.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "commands.h"
#include "format.h"
#include "interrupt.h"
#include "kvsieve/error.h"
#include "method_options.h"
#include "model_args.h"
#include "output.h"
#include "question_image.h"
#include "terminal.h"

using namespace kvsieve;
namespace fs = std::filesystem;

namespace {

struct ObserveArgs {
    ModelArgs model;
    MethodArgs method;
    std::string prompt, system, output;
    std::vector<std::string> images;
    bool has_method = false;
};

void observe(const ObserveArgs & args) {
    args.model.check(!args.images.empty());
    Traits wanted = all_observations();
    if (args.has_method) {
        MethodArgs method = args.method;
        if (method.keep.empty() && method.profile.empty()) {
            method.keep = "1";  // what is observed does not depend on it
        }
        const MethodChoice choice = method.resolve();
        wanted = make_method(choice.method, choice.options)->traits();
    }
    check_writable(args.output);
    for (const std::string & path : args.images) {
        static_cast<void>(load_question_image(path));
    }
    const TerminalStyle style = TerminalStyle::of_stderr();
    Progress progress(style);
    progress.update("loading", -1.0);
    const auto model = Model::load(args.model.files());
    SessionOptions options;
    options.n_ctx = args.model.n_ctx;
    options.chat_template = args.model.chat_template;
    options.system = args.system;
    Callbacks callbacks = until_interrupted();
    callbacks.on_progress = [&](Phase phase, double share) {
        progress.update(phase == Phase::vision ? "image" : "prefill", phase == Phase::vision ? -1.0 : share);
    };
    const InterruptGuard interrupts;
    const PromptShape prompt = write_observations(
        model, options, {args.prompt, {args.images.begin(), args.images.end()}}, wanted, args.output, callbacks);
    progress.hide();
    fmt::print(stderr, "{}: {} tokens ({} visual), {} layers, {}\n", args.output, prompt.n_tokens,
               std::count(prompt.visual_mask.begin(), prompt.visual_mask.end(), 1), prompt.n_layer,
               format_bytes(fs::file_size(args.output)));
}

}  // namespace

void add_observe_command(CLI::App & app) {
    CLI::App * const command = app.add_subcommand("observe", "Write what methods see of a prompt to a file (obs.npz)");
    const auto args = std::make_shared<ObserveArgs>();
    args->model.add_to(*command);
    command->add_option("-p,--prompt", args->prompt, "The question; '<image>' in it marks an image's place")
        ->type_name("TEXT")
        ->required();
    command->add_option("--image", args->images, "An image; may be repeated")
        ->type_name("FILE")
        ->expected(1)
        ->allow_extra_args(false)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    command->add_option("--system", args->system, "System message")->type_name("TEXT");
    command->add_option("-o,--output", args->output, "The file")->type_name("FILE")->required();
    const size_t n_before = command->get_options().size();
    args->method.add_to(*command);
    const std::vector<CLI::Option *> all = command->get_options();
    for (size_t i = n_before; i < all.size(); ++i) {
        all[i]->group("Only what one method sees");
    }
    command->callback([args, command, n_before] {
        const std::vector<CLI::Option *> options = command->get_options();
        args->has_method = std::any_of(options.begin() + static_cast<std::ptrdiff_t>(n_before), options.end(),
                                       [](const CLI::Option * option) { return option->count() > 0; });
        observe(*args);
    });
}
