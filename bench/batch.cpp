// SPDX-License-Identifier: MIT
// What the batch engine does with requests whose prompts come while others decode. JSON lines.
//   kvsieve_batch_cost together MODEL MIB [N_PROMPT N_GEN [CASE,...]]  how many sequences decode together in so many
//       bytes: with everything kept in f16 (case 0), and with PrefixKV at keep 0.2 in f16 and q8_0, with a profile (1,
//       2) and online (3, 4). Every sequence is prefilled; the count depends on the model's KV shape only.
//   kvsieve_batch_cost gap MODEL [N_SEQ N_PROMPT]           time between two tokens of N_SEQ sequences while a newcomer
//       of N_PROMPT tokens comes in
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "eval/made_up_tokens.h"
#include "eval/metrics.h"
#include "kvsieve/batch.h"
#include "kvsieve/engine.h"
#include "kvsieve/error.h"
#include "kvsieve/kv_cache.h"
#include "policy/number.h"
#include "program.h"

using namespace kvsieve;

namespace {

constexpr double kKeep = 0.2;
constexpr int32_t kMost = 1024;  // sequences

Request request_of(const Model & model, int32_t n_prompt, int32_t n_gen, uint32_t seed) {
    Request request;
    request.tokens = made_up_tokens(model.info().n_vocab, n_prompt, seed);
    request.generate.n_predict = n_gen;
    request.session.n_ctx = n_prompt + n_gen + 1;
    return request;
}

Profile profile_of(const ModelInfo & info) {
    Profile profile;
    for (int32_t il = 0; il < info.n_layer; ++il) {
        profile.forget.push_back(1.0 - layer_share(kKeep, il, info.n_layer));
    }
    profile.model_fingerprint = info.fingerprint;
    return profile;
}

void together(const std::shared_ptr<const Model> & model, uint64_t kv_bytes, int32_t n_prompt, int32_t n_gen,
              const std::string & cases) {
    struct Case {
        const char * method;
        KvType type;
        bool profile;
    };
    constexpr std::array<Case, 5> kCases = {{{"full", KvType::f16, false},
                                             {"prefixkv", KvType::f16, true},
                                             {"prefixkv", KvType::q8_0, true},
                                             {"prefixkv", KvType::f16, false},
                                             {"prefixkv", KvType::q8_0, false}}};
    for (const std::string & number : split(cases, ',')) {
        const auto which = parse_unsigned(number);
        if (!which || *which >= kCases.size()) {
            throw Error(ErrorCode::invalid_argument, "the cases are 0 to 4, got '" + number + "'");
        }
        const auto & [method, type, profile] = kCases[*which];
        // a prompt at a time without pause, so that nobody ends before the budget is full
        BatchEngine engine(model, {.kv_bytes = kv_bytes, .max_sequences = kMost, .prefill_ms = 1e9});
        std::vector<uint64_t> ids;
        const auto submit = [&] {
            Request request = request_of(*model, n_prompt, n_gen, static_cast<uint32_t>(ids.size()) + 1);
            request.session.method = method;
            request.session.kv_type = type;
            if (profile) {
                request.session.method_options.profile = profile_of(model->info());
            } else if (method != std::string("full")) {
                request.session.method_options.keep = kKeep;
            }
            request.on_done = [&](const RequestResult & result, const Session &) {
                if (result.end == RequestEnd::failed) {
                    std::rethrow_exception(result.error);
                }
            };
            ids.push_back(engine.submit(std::move(request)));
        };
        submit();
        int32_t most = 0;
        for (int32_t idle = 0; idle < 2;) {  // steps in which nobody could start
            if (engine.usage().n_waiting == 0) {
                submit();
            }
            const int32_t waiting = engine.usage().n_waiting;
            engine.step();
            const BatchUsage usage = engine.usage();
            idle = usage.n_waiting == waiting && usage.n_prefilling == 0 ? idle + 1 : 0;
            most = std::max(most, usage.n_decoding);
        }
        const BatchUsage usage = engine.usage();
        const nlohmann::ordered_json line = {{"benchmark", "together"},
                                             {"method", method},
                                             {"keep", method == std::string("full") ? 1.0 : kKeep},
                                             {"kv_type", kv_type_name(type)},
                                             {"profile", profile},
                                             {"n_prompt", n_prompt},
                                             {"n_gen", n_gen},
                                             {"kv_bytes", kv_bytes},
                                             {"n_together", most},
                                             {"kv_bytes_admitted", usage.kv_bytes_admitted},
                                             {"kv_bytes_peak", usage.kv_bytes_peak}};
        std::printf("%s\n", line.dump().c_str());
        std::fflush(stdout);
        for (const uint64_t id : ids) {
            engine.cancel(id);
        }
        while (engine.step()) {
        }
        if (usage.kv_bytes_peak > kv_bytes) {
            throw Error(ErrorCode::runtime, "the caches took " + std::to_string(usage.kv_bytes_peak) +
                                                " bytes, the budget was " + std::to_string(kv_bytes));
        }
    }
}

void gap(const std::shared_ptr<const Model> & model, int32_t n_seq, int32_t n_prompt) {
    using Clock = std::chrono::steady_clock;
    BatchEngine engine(model, {.max_sequences = n_seq + 1});
    std::vector<uint64_t> ids;
    for (int32_t i = 0; i < n_seq; ++i) {
        ids.push_back(
            engine.submit(request_of(*model, n_prompt / 4 * (1 + i % 4), 1 << 16, static_cast<uint32_t>(i) + 1)));
    }
    while (engine.usage().n_decoding < n_seq) {
        engine.step();
    }
    // A step gives each running sequence one token: its time is the gap that all of them see.
    const auto timed_step = [&](std::vector<double> & times) {
        const auto start = Clock::now();
        engine.step();
        times.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
    };
    std::vector<double> alone, beside;
    for (int32_t i = 0; i < 32; ++i) {
        timed_step(alone);
    }
    const auto start = Clock::now();
    ids.push_back(engine.submit(request_of(*model, n_prompt, 1, 1000)));
    do {
        timed_step(beside);
    } while (engine.usage().n_waiting + engine.usage().n_prefilling > 0);
    const double prefill_ms = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
    const nlohmann::ordered_json line = {{"benchmark", "gap"},
                                         {"n_seq", n_seq},
                                         {"n_prompt", n_prompt},
                                         {"n_gaps", beside.size()},
                                         {"alone_ms_p50", quantile(alone, 0.5)},
                                         {"gap_ms_p50", quantile(beside, 0.5)},
                                         {"gap_ms_p99", quantile(beside, 0.99)},
                                         {"gap_ms_max", quantile(beside, 1.0)},
                                         {"newcomer_ms", prefill_ms}};
    std::printf("%s\n", line.dump().c_str());
    for (const uint64_t id : ids) {
        engine.cancel(id);
    }
    while (engine.step()) {
    }
}

}  // namespace

int main(int argc, char ** argv) {
    const std::string mode = argc > 2 ? argv[1] : "";
    const auto number = [&](int i, int otherwise) { return argc > i ? std::atoi(argv[i]) : otherwise; };
    ModelOptions files;
    files.model = argc > 2 ? argv[2] : "";
    try {
        if (mode == "together" && number(3, 0) > 0 && number(4, 2048) > 0 && number(5, 128) > 0) {
            together(Model::load(files), static_cast<uint64_t>(number(3, 0)) << 20U, number(4, 2048), number(5, 128),
                     argc > 6 ? argv[6] : "0,1,2,3,4");
        } else if (mode == "gap" && number(3, 4) > 0 && number(4, 2048) > 3) {
            gap(Model::load(files), number(3, 4), number(4, 2048));
        } else {
            std::fprintf(stderr,
                         "expected: together MODEL MIB [N_PROMPT N_GEN [CASE,...]], or gap MODEL [N_SEQ N_PROMPT]\n");
            return 2;
        }
        return 0;
    } catch (const std::exception & e) {
        std::fprintf(stderr, "%s\n", e.what());
        return 1;
    }
}
