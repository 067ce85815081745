// SPDX-License-Identifier: MIT
// What a decode step costs behind prompts of any length, without prefilling them: the rows are made up, which changes
// no time. Layers keep different numbers of rows, as PrefixKV's do, and nothing is evicted. One JSON line per case;
// cases whose rows take more than MIB are left out.
//   kvsieve_decode_cost MODEL LENGTH,... BATCH,... KEEP,... MIB THREADS [STEPS]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "eval/metrics.h"
#include "graph/forward.h"
#include "graph/packed_weights.h"
#include "policy/clock.h"
#include "policy/number.h"
#include "program.h"

using namespace kvsieve;

namespace {

struct Case {
    int32_t n_prompt, n_seq;
    double keep;
};

/// A decoder with its matrices repacked, as the engine has it.
struct Loaded {
    GgufFile file;
    Weights in_file;
    std::unique_ptr<const PackedWeights> packed;
    Weights weights;
    std::unique_ptr<const Decoder> decoder;

    Loaded(const std::string & path, int32_t n_threads)
        : file(path),
          in_file(file),
          packed(pack(n_threads)),
          weights(file, packed.get()),
          decoder(make_decoder(file, weights, 0)) {}
    std::unique_ptr<const PackedWeights> pack(int32_t n_threads) {
        static_cast<void>(make_decoder(file, in_file, 0));
        return std::make_unique<PackedWeights>(file, in_file.matrices(), n_threads);
    }
};

/// The rows that each layer keeps, evenly spaced.
std::vector<LayerPlan> plans_of(const Case & c, int32_t n_layer) {
    std::vector<LayerPlan> plans;
    for (int32_t il = 0; il < n_layer; ++il) {
        const auto n = static_cast<int32_t>(std::lround(c.n_prompt * layer_share(c.keep, il, n_layer)));
        std::vector<int32_t> kept;
        for (int32_t i = 0; i < n; ++i) {
            kept.push_back(static_cast<int32_t>(int64_t{i} * c.n_prompt / n));
        }
        plans.push_back({{kept}});
    }
    return plans;
}

void measure(const Case & c, const Decoder & decoder, GraphRunner & runner, const std::vector<ggml_fp16_t> & rows,
             uint64_t max_bytes, int32_t n_steps) {
    const DecoderConfig & config = decoder.config();
    const std::vector<LayerPlan> plans = plans_of(c, config.n_layer);
    uint64_t n_rows = 0;
    for (const LayerPlan & plan : plans) {
        n_rows += plan.kept.front().size();
    }
    const uint64_t bytes = n_rows * static_cast<uint64_t>(c.n_seq) * static_cast<uint64_t>(config.n_head_kv) *
                           static_cast<uint64_t>(config.head_dim) * 2 * sizeof(ggml_fp16_t);
    if (bytes > max_bytes) {
        return;
    }
    std::vector<RaggedKvCache> caches;
    for (int32_t i = 0; i < c.n_seq; ++i) {
        RaggedKvCache & cache = caches.emplace_back(KvCacheParams{config.n_layer, config.n_head_kv, config.head_dim});
        for (int32_t il = 0; il < config.n_layer; ++il) {
            const F16Rows some{rows.data(), 0, 0};
            cache.store_layer(il, some, some, c.n_prompt, &plans[static_cast<size_t>(il)], {}, runner.n_threads());
        }
    }
    const auto n_seq = static_cast<size_t>(c.n_seq);
    std::vector<float> logits(n_seq * static_cast<size_t>(config.n_vocab));
    std::vector<double> step_ms;
    for (int32_t i = 0; i <= n_steps; ++i) {
        std::vector<float> residual(n_seq * static_cast<size_t>(config.n_embd), 0.5F);
        std::vector<BatchLane> lanes;
        for (size_t s = 0; s < n_seq; ++s) {
            const std::span<float> own(logits.data() + s * static_cast<size_t>(config.n_vocab),
                                       static_cast<size_t>(config.n_vocab));
            lanes.push_back({{&caches[s], c.n_prompt + i}, own});
        }
        const auto start = std::chrono::steady_clock::now();
        forward_batch(runner, decoder, lanes, residual);
        if (i > 0) {  // the first one is the warm-up
            step_ms.push_back(ms_since(start));
        }
    }
    const nlohmann::ordered_json line = {{"benchmark", "decode"},
                                         {"n_prompt", c.n_prompt},
                                         {"n_seq", c.n_seq},
                                         {"keep", c.keep},
                                         {"n_layer", config.n_layer},
                                         {"kv_bytes", bytes},
                                         {"step_ms_p50", quantile(step_ms, 0.5)},
                                         {"step_ms_min", quantile(step_ms, 0.0)}};
    std::printf("%s\n", line.dump().c_str());
    std::fflush(stdout);
}

template <typename T>
T number(const std::string & text) {
    const auto value = parse_number(text);
    if (!value || !(*value > 0.0) || *value > 1e6) {
        throw Error(ErrorCode::invalid_argument, "expected a number above 0, got '" + text + "'");
    }
    return static_cast<T>(*value);
}

template <typename T>
std::vector<T> numbers(const std::string & list) {
    std::vector<T> out;
    for (const std::string & text : split(list, ',')) {
        out.push_back(number<T>(text));
    }
    return out;
}

int run(const std::vector<std::string> & args) {
    if (args.size() < 6 || args.size() > 7) {
        throw Error(ErrorCode::invalid_argument,
                    "expected MODEL LENGTH,... BATCH,... KEEP,... MIB THREADS [STEPS], got " +
                        std::to_string(args.size()) + " arguments");
    }
    const auto lengths = numbers<int32_t>(args[1]), batches = numbers<int32_t>(args[2]);
    const auto keeps = numbers<double>(args[3]);
    const uint64_t max_bytes = number<uint64_t>(args[4]) << 20U;
    const auto n_threads = number<int32_t>(args[5]);
    ggml_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
    const Loaded model(args[0], n_threads);
    const DecoderConfig & config = model.decoder->config();
    const auto row = static_cast<size_t>(config.n_head_kv) * static_cast<size_t>(config.head_dim);
    std::vector<ggml_fp16_t> rows(static_cast<size_t>(*std::max_element(lengths.begin(), lengths.end())) * row);
    for (size_t i = 0; i < rows.size(); ++i) {
        rows[i] = ggml_fp32_to_fp16(std::sin(static_cast<float>(i % 9973)));
    }
    GraphRunner runner(n_threads);
    for (const double keep : keeps) {
        for (const int32_t n_prompt : lengths) {
            for (const int32_t n_seq : batches) {
                measure({n_prompt, n_seq, keep}, *model.decoder, runner, rows, max_bytes,
                        args.size() > 6 ? number<int32_t>(args[6]) : 16);
            }
        }
    }
    return 0;
}

}  // namespace

int main(int argc, char ** argv) {
    return run_program("kvsieve_decode_cost", argc, argv, run);
}
