// SPDX-License-Identifier: MIT
// Answers several questions about images at once, from caches that together never pass a budget of bytes; what does
// not fit yet waits.
//   answer_many_questions MIB IMAGE QUESTION [IMAGE QUESTION]...
#include <cstdlib>
#include <exception>
#include <iostream>
#include <memory>
#include <string>

#include "kvsieve/batch.h"
#include "kvsieve/engine.h"
#include "kvsieve/error.h"

int main(int argc, char ** argv) {
    const double mib = argc > 1 ? std::atof(argv[1]) : 0.0;
    if (argc < 4 || argc % 2 != 0 || !(mib > 0.0)) {
        std::cerr << "usage: " << argv[0] << " MIB IMAGE QUESTION [IMAGE QUESTION]...\n";
        return 2;
    }
    try {
        kvsieve::BatchOptions options;
        options.kv_bytes = static_cast<uint64_t>(mib * 1024 * 1024);
        kvsieve::BatchEngine engine(kvsieve::Model::load(kvsieve::embedded_model()), options);

        int n_failed = 0;
        for (int i = 2; i + 1 < argc; i += 2) {
            kvsieve::Request request;
            request.turn = {argv[i + 1], {argv[i]}};
            request.session.method = "prefixkv";
            request.session.method_options.keep = 0.2;
            request.generate.n_predict = 64;
            request.on_done = [&, question = std::string(argv[i + 1])](const kvsieve::RequestResult & result,
                                                                       const kvsieve::Session & session) {
                std::cout << question << ' ' << result.answer.text << '\n';
                if (result.error) {
                    ++n_failed;
                    try {
                        std::rethrow_exception(result.error);
                    } catch (const std::exception & error) {
                        std::cerr << error.what() << '\n';
                    }
                    return;
                }
                std::cout << "    [" << session.usage().bytes_held / 1024 << " KiB of cache, first token after "
                          << static_cast<int>(result.ttft_ms) << " ms, " << result.waited_ms << " of them waiting]\n";
            };
            engine.submit(std::move(request));
        }
        while (engine.step()) {
        }
        std::cout << "together " << engine.usage().kv_bytes_peak / 1024 << " KiB at most\n";
        return n_failed == 0 ? 0 : 1;
    } catch (const kvsieve::Error & error) {
        std::cerr << error.what() << '\n';
        return kvsieve::exit_code(error.code());
    }
}
