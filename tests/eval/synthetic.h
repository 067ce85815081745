// SPDX-License-Identifier: MIT
// Made-up results in the shape of real ones, to look at reports and to test them. No model has said any of it.
#pragma once

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "eval/inequality.h"
#include "eval/results.h"

namespace kvsieve::test {

struct SyntheticOptions {
    int n_samples = 60;
    bool by_budget = true;                 ///< else by keep
    std::vector<std::string> images = {};  ///< data: URIs of the first samples
};

/// A method's made-up loss at a share of the bytes, in nats above the full cache.
inline double synthetic_loss(size_t method, double share) {
    constexpr double kWeakness[] = {0.25, 0.12, 0.45, 0.35, 0.8, 0.3, 1.2, 0.22};
    return kWeakness[method % std::size(kWeakness)] * std::pow(1 / share - 1, 0.55) * 0.4;
}

inline Results synthetic_results(const SyntheticOptions & options) {
    constexpr int kLayers = 8, kGrid = 24, kText = 16;
    const std::vector<std::string> methods{"prefixkv", "aircache", "h2o", "snapkv", "streaming", "pyramid", "random"};
    Results out;
    out.header = {.version = "0.0.0",
                  .command = "kvsieve eval --data synthetic.jsonl --metrics all --methods all",
                  .model = "SYNTHETIC: no model was run",
                  .model_fingerprint = "synthetic",
                  .data = "synthetic.jsonl",
                  .data_sha256 = std::string(64, '0'),
                  .n_samples = options.n_samples,
                  .n_layer = kLayers,
                  .n_head_kv = 4,
                  .metrics = {"ppl", "rouge_l", "exact_match", "anls"},
                  .grid = {{.method = "full", .keep = 1.0}}};
    for (const std::string & method : methods) {
        for (const char * const type : {"f16", "q8_0"}) {
            for (const double share : {0.5, 0.2, 0.1, 0.05}) {
                CellKey key{.method = method, .kv_type = type};
                (options.by_budget ? key.budget : key.keep) = share;
                out.header.grid.push_back(key);
            }
        }
    }
    out.header.grid.push_back({.method = "aircache", .params = {{"alpha", "0.8"}}, .kv_type = "f16"});
    (options.by_budget ? out.header.grid.back().budget : out.header.grid.back().keep) = 0.1;

    for (const CellKey & key : out.header.grid) {
        const auto method =
            static_cast<size_t>(std::find(methods.begin(), methods.end(), key.method) - methods.begin());
        const double asked = key.budget.value_or(key.keep.value_or(1));
        const double size = key.kv_type == "q8_0" ? 17.0 / 32 : 1;
        const bool full = key.method == "full";
        for (int s = 0; s < options.n_samples; ++s) {
            std::mt19937_64 random(static_cast<uint64_t>(s));  // alike for all cells: samples are hard or easy
            const auto uniform = [&] { return static_cast<double>(random() >> 11U) * 0x1p-53; };
            const double keep = full ? 1 : std::min(1.0, key.budget ? asked / size : asked);
            const int64_t n_prompt = kGrid * kGrid + kText;
            const double full_nll = 0.1 + 0.8 * uniform(),
                         loss = full ? 0 : synthetic_loss(method, keep) * 2 * uniform();
            const bool right = uniform() < std::exp(-full_nll * 0.5 - loss * 0.6);
            std::string number = std::to_string(s);
            number.insert(0, 4 - number.size(), '0');
            CellResult cell{.sample = number + "-form-q0",
                            .group = std::to_string(s / 3) + ".png",
                            .key = key,
                            .keep = keep,
                            .n_prompt = n_prompt,
                            .kv_bytes = static_cast<uint64_t>(keep * size * 8192.0 * static_cast<double>(n_prompt)),
                            .kv_bytes_full = static_cast<uint64_t>(8192 * n_prompt),
                            .n_tokens = 3 + s % 5,
                            .nll = (full_nll + loss) * (3 + s % 5),
                            .metrics = {{"exact_match", right ? 1 : 0},
                                        {"anls", right             ? 1
                                                 : uniform() < 0.3 ? 0.6
                                                                   : 0},
                                        {"rouge_l", full ? 1 : std::exp(-loss * 0.7)}}};
            if (s % 4 == 0) {
                cell.n_next = 2;
                cell.metrics["exact_match_next"] = uniform() < std::exp(-full_nll - 1.5 * loss) ? 1 : 0.5;
            }
            for (int il = 0; il < kLayers; ++il) {
                const double tilt = method == 0 || method == 1 || method == 5 ? 0.9 - 0.26 * il : 0;
                const double rows = keep * static_cast<double>(n_prompt * 4) * std::exp(full ? 0 : tilt);
                cell.layer_rows.push_back(std::min(n_prompt * 4, static_cast<int64_t>(rows)));
                if (key.method == "aircache") {
                    cell.strength.push_back(0.2 + 0.07 * il + 0.05 * uniform());
                    cell.skewness.push_back(1.5 + std::sin(il) + 0.2 * uniform());
                }
            }
            if (static_cast<size_t>(s) < options.images.size() && !full) {
                for (int i = 0; i < kGrid * kGrid; ++i) {
                    const double wave = std::sin(0.5 * (i % kGrid) + s) *
                                        std::cos(0.7 * (i / kGrid) + 0.3 * static_cast<double>(method));
                    cell.token_layers.push_back(std::floor(kLayers * std::clamp(keep * (1.2 + 2 * wave), 0.0, 1.0)));
                }
            }
            out.cells.push_back(cell);
        }
    }
    for (int s = 0; s < options.n_samples; ++s) {
        SampleFacts facts{.sample = out.cells[static_cast<size_t>(s)].sample};
        std::mt19937_64 random(static_cast<uint64_t>(s) + 1000);
        for (int il = 0; il < kLayers; ++il) {
            std::vector<float> importance(200);
            for (float & x : importance) {
                x = static_cast<float>(std::pow(static_cast<double>(random() % 1000 + 1) / 1000, 1.0 + 1.5 * il));
            }
            facts.gini.push_back(gini(importance));
            facts.lorenz.push_back(lorenz_curve(importance, 21));
        }
        if (static_cast<size_t>(s) < options.images.size()) {
            facts.image = options.images[static_cast<size_t>(s)];
            facts.nx = facts.ny = kGrid;
        }
        out.samples.push_back(facts);
    }
    out.n_complete = options.n_samples;
    return out;
}

}  // namespace kvsieve::test
