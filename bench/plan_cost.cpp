// SPDX-License-Identifier: MIT
// What planning costs once the scores are there: one JSON line per method and granularity.
//   kvsieve_plan_cost [LAYERS HEADS TOKENS THREADS REPEATS], default 32 32 32768 2 5
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "kvsieve/policy.h"

using namespace kvsieve;

namespace {

struct Sizes {
    int32_t n_layer = 32, n_head_kv = 32, n_tokens = 32768, n_threads = 2, n_repeat = 5;
};

double cpu_ms() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    const auto ms = [](const timeval & t) {
        return 1e3 * static_cast<double>(t.tv_sec) + 1e-3 * static_cast<double>(t.tv_usec);
    };
    return ms(usage.ru_utime) + ms(usage.ru_stime);
}

/// Scores like attention's: few large, many small. The stats are those that any allocator reads.
std::vector<LayerScore> made_up_scores(const Sizes & sizes, size_t n_set) {
    std::mt19937 random(1);
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    std::vector<LayerScore> out(static_cast<size_t>(sizes.n_layer));
    for (LayerScore & layer : out) {
        layer.score.resize(n_set * static_cast<size_t>(sizes.n_tokens));
        for (double & x : layer.score) {
            x = std::exp(4 - 12 * uniform(random));  // around 1, as column sums are
        }
        for (const char * name :
             {"strength", "skew", "window_entropy", "window_variance", "score_entropy", "density"}) {
            layer.stats[name] = 0.5 + uniform(random);
        }
    }
    return out;
}

void measure(const MethodInfo & info, const Sizes & sizes, bool per_head, const std::vector<LayerScore> & scores) {
    PromptShape prompt{.n_layer = sizes.n_layer,
                       .n_head = sizes.n_head_kv,
                       .n_head_kv = sizes.n_head_kv,
                       .head_dim = 128,
                       .n_tokens = sizes.n_tokens};
    prompt.visual_mask.assign(static_cast<size_t>(sizes.n_tokens), 0);
    std::fill_n(prompt.visual_mask.begin() + 32, sizes.n_tokens * 3 / 4, uint8_t{1});
    MethodOptions options{.keep = info.keep_of.empty() ? 1.0 : 0.2, .n_threads = sizes.n_threads};
    const bool chooses = std::any_of(info.params.begin(), info.params.end(),
                                     [](const ParamSpec & spec) { return spec.name == "granularity"; });
    if (chooses) {
        options.params["granularity"] = per_head ? "head" : "layer";
    }
    const auto method = make_method(info.name, options);
    if (method->traits().per_head != per_head) {
        return;
    }
    std::vector<double> wall, cpu;
    int64_t n_rows = 0;
    for (int32_t i = 0; i < sizes.n_repeat; ++i) {
        const double cpu_start = cpu_ms();
        const auto start = std::chrono::steady_clock::now();
        const Plan plan = method->plan(prompt, scores);
        wall.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
        cpu.push_back(cpu_ms() - cpu_start);
        n_rows = 0;
        for (const LayerPlan & layer : plan.layers) {
            for (int32_t g = 0; g < sizes.n_head_kv; ++g) {
                n_rows += static_cast<int64_t>(layer.of_head(g).size());
            }
        }
    }
    // What was timed is what was asked for.
    if (n_rows != method->count_rows(prompt, scores)) {
        std::fprintf(stderr, "%s kept %lld rows, not what its budgets say\n", std::string(info.name).c_str(),
                     static_cast<long long>(n_rows));
        std::exit(1);
    }
    std::sort(wall.begin(), wall.end());
    const nlohmann::ordered_json line = {{"benchmark", "plan"},
                                         {"method", info.name},
                                         {"granularity", per_head ? "head" : "layer"},
                                         {"layers", sizes.n_layer},
                                         {"heads", sizes.n_head_kv},
                                         {"tokens", sizes.n_tokens},
                                         {"threads", sizes.n_threads},
                                         {"keep", options.keep},
                                         {"ms_min", wall.front()},
                                         {"ms_median", wall[wall.size() / 2]},
                                         {"cpu_ms_min", *std::min_element(cpu.begin(), cpu.end())}};
    std::printf("%s\n", line.dump().c_str());
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char ** argv) {
    Sizes sizes;
    int32_t * const targets[] = {&sizes.n_layer, &sizes.n_head_kv, &sizes.n_tokens, &sizes.n_threads, &sizes.n_repeat};
    for (int i = 1; i < argc && i <= 5; ++i) {
        *targets[i - 1] = std::atoi(argv[i]);
    }
    if (sizes.n_layer < 1 || sizes.n_head_kv < 1 || sizes.n_tokens < 100 || sizes.n_threads < 1 || sizes.n_repeat < 1) {
        std::fprintf(stderr, "expected numbers of at least 1, and at least 100 tokens\n");
        return 2;
    }
    try {
        for (const bool per_head : {false, true}) {
            const auto scores = made_up_scores(sizes, per_head ? static_cast<size_t>(sizes.n_head_kv) : 1);
            for (const MethodInfo & info : methods()) {
                measure(info, sizes, per_head, scores);
            }
        }
    } catch (const std::exception & e) {
        std::fprintf(stderr, "%s\n", e.what());
        return 1;
    }
    return 0;
}
