// SPDX-License-Identifier: MIT
#include "model_args.h"

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
    text("--chat-template", chat_template, "NAME",
         "A chat template that libllama knows, or 'raw' for none [the model's own]");
    add_integer(app, "-c,--ctx-size", n_ctx, 0, INT32_MAX, "Most tokens of the conversation; 0 = the model's context")
        ->group("Model");
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
    files.n_threads = n_threads;
    return files;
}
