// SPDX-License-Identifier: MIT
// Asks a question about an image and answers it from a fifth of the KV cache, then asks a second one about the same
// image, which is not encoded again.
//   ask_about_an_image IMAGE [QUESTION [FOLLOW-UP]]
#include <iostream>
#include <string>

#include "kvsieve/engine.h"
#include "kvsieve/error.h"

int main(int argc, char ** argv) {
    if (argc < 2) {
        std::cerr << "usage: " << argv[0] << " IMAGE [QUESTION [FOLLOW-UP]]\n";
        return 2;
    }
    try {
        const auto model = kvsieve::Model::load(kvsieve::embedded_model());

        kvsieve::SessionOptions options;
        options.method = "prefixkv";
        options.method_options.keep = 0.2;
        kvsieve::Session session(model, options);

        kvsieve::GenerateOptions generate;
        generate.n_predict = 64;
        kvsieve::Callbacks callbacks;
        callbacks.on_text = [](std::string_view piece) { std::cout << piece << std::flush; };

        const std::string question = argc > 2 ? argv[2] : "What is in this image?";
        const auto answer = session.ask({question, {argv[1]}}, generate, callbacks);
        const auto usage = session.usage();
        std::cout << "\n[" << answer.n_visual << " visual and " << answer.n_text << " text tokens; cache "
                  << usage.bytes_held / 1024 << " of " << usage.bytes_full_f16 / 1024 << " KiB]\n";

        if (argc > 3) {
            session.ask({argv[3], {}}, generate, callbacks);
            std::cout << '\n';
        }
        return 0;
    } catch (const kvsieve::Error & error) {
        std::cerr << error.what() << '\n';
        return kvsieve::exit_code(error.code());
    }
}
