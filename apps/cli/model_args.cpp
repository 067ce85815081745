// SPDX-License-Identifier: MIT
#include "model_args.h"

#include <algorithm>
#include <thread>

#include "kvsieve/error.h"
#include "usage.h"

using namespace kvsieve;

void ModelArgs::add_to(CLI::App & app) {
    const auto text = [&](const std::string & names, std::string & target, const std::string & type,
                          const std::string & help) {
        return app.add_option(names, target, help)->type_name(type)->group("Model");
    };
    text("-m,--model", model, "FILE", "Language model (GGUF) [the embedded one]");
    text("--mmproj", mmproj, "FILE", "Its vision encoder (GGUF)");
    text("--probes", probes, "FILE",
         "Its probe queries for method sieve, 'none' for none [those of the embedded model]");
    text("--chat-template,--template", chat_template, "NAME",
         "A chat template that libllama knows, or 'none' [the model's own]");
    add_integer(app, "-c,--ctx-size", n_ctx, 0, INT32_MAX, "Most tokens of the conversation; 0 = the model's context")
        ->group("Model");
    app.add_flag("--no-repack", no_repack, "Leave quantised matrices as they lie in the file")->group("Model");
    add_integer(app, "-t,--threads", n_threads, 0, 512, "Threads; 0 = one for each core")->group("Model");
}

void ModelArgs::check(bool has_images) const {
    if (model.empty() && !mmproj.empty()) {
        throw Error(ErrorCode::invalid_argument, "--mmproj belongs to a model; name that with -m");
    }
    if (!model.empty() && mmproj.empty() && has_images) {
        throw Error(ErrorCode::invalid_argument, "--image needs the model's vision encoder; name it with --mmproj");
    }
}

int32_t ModelArgs::threads() const {
    return n_threads > 0 ? n_threads : static_cast<int32_t>(std::max(1U, std::thread::hardware_concurrency()));
}

ModelOptions ModelArgs::files() const {
    ModelOptions files;
    if (model.empty()) {
        files = embedded_model();
    } else {
        files.model = model;
        if (!mmproj.empty()) {
            files.mmproj = mmproj;
        }
    }
    if (probes == "none") {
        files.probes.reset();
    } else if (!probes.empty()) {
        files.probes = probes;
    }
    files.n_threads = n_threads;
    files.repack = !no_repack;
    return files;
}
