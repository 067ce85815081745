// SPDX-License-Identifier: MIT
// Architecture "llama" in plain double-precision loops, with a mask of one's own: what the engine's graphs are held
// against. Plain RoPE, no biases.
#pragma once

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "gguf/model_writer.h"
#include "support/random_model.h"

namespace kvsieve::test {

class NaiveLlama {
  public:
    /// May query q of layer il read key k <= q in KV head g?
    using Mask = std::function<bool(int32_t il, int32_t g, int32_t q, int32_t k)>;

    struct Result {
        std::vector<std::vector<double>> logits;                     // [n][n_vocab]
        std::vector<std::vector<double>> attention;                  // [L][H * n * n], softmax rows
        std::vector<std::vector<std::vector<double>>> keys, values;  // [L][n][G * d]
        std::vector<std::vector<std::vector<double>>> queries;       // [L][n][H * d], before RoPE
        size_t n = 0;
        [[nodiscard]] double at(size_t il, size_t h, size_t q, size_t k) const {
            return attention[il][(h * n + q) * n + k];
        }
    };

    NaiveLlama(const std::filesystem::path & path, const ModelShape & shape) : shape_(shape) {
        const GgufEdit file(path);
        const auto take = [&](const std::string & name) {
            const std::vector<float> values = file.values(name);
            weights_[name].assign(values.begin(), values.end());
        };
        take("token_embd.weight");
        take("output_norm.weight");
        take("output.weight");
        for (int32_t il = 0; il < shape.n_layer; ++il) {
            for (const std::string part : {"attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm",
                                           "ffn_gate", "ffn_up", "ffn_down"}) {
                take(name(il, part));
            }
        }
    }

    [[nodiscard]] Result run(std::span<const int32_t> tokens, const Mask & mask = {}) const {
        const auto d = static_cast<size_t>(shape_.head_dim);
        const auto n_head = static_cast<size_t>(shape_.n_head);
        const auto n_head_kv = static_cast<size_t>(shape_.n_head_kv);
        Result out;
        out.n = tokens.size();
        std::vector<std::vector<double>> stream;
        for (const int32_t token : tokens) {
            const auto first = weights_.at("token_embd.weight").begin() + int64_t{token} * shape_.n_embd;
            stream.emplace_back(first, first + shape_.n_embd);
        }
        for (int32_t il = 0; il < shape_.n_layer; ++il) {
            std::vector<std::vector<double>> q, k, v, unrotated;
            for (size_t i = 0; i < out.n; ++i) {
                const std::vector<double> x = norm(stream[i], name(il, "attn_norm"));
                unrotated.push_back(multiply(name(il, "attn_q"), x));
                q.push_back(rotated(unrotated.back(), i));
                k.push_back(rotated(multiply(name(il, "attn_k"), x), i));
                v.push_back(multiply(name(il, "attn_v"), x));
            }
            std::vector<double> attention(n_head * out.n * out.n, 0.0);
            for (size_t i = 0; i < out.n; ++i) {
                std::vector<double> heads(n_head * d, 0.0);
                for (size_t h = 0; h < n_head; ++h) {
                    const size_t g = h / (n_head / n_head_kv);
                    double * row = attention.data() + (h * out.n + i) * out.n;
                    double sum = 0;
                    for (size_t j = 0; j <= i; ++j) {
                        if (mask &&
                            !mask(il, static_cast<int32_t>(g), static_cast<int32_t>(i), static_cast<int32_t>(j))) {
                            continue;
                        }
                        double score = 0;
                        for (size_t c = 0; c < d; ++c) {
                            score += q[i][h * d + c] * k[j][g * d + c];
                        }
                        row[j] = std::exp(score / std::sqrt(static_cast<double>(d)));
                        sum += row[j];
                    }
                    for (size_t j = 0; j <= i; ++j) {
                        row[j] /= sum;
                        for (size_t c = 0; c < d; ++c) {
                            heads[h * d + c] += row[j] * v[j][g * d + c];
                        }
                    }
                }
                add(stream[i], multiply(name(il, "attn_output"), heads));
                const std::vector<double> x = norm(stream[i], name(il, "ffn_norm"));
                std::vector<double> gate = multiply(name(il, "ffn_gate"), x);
                const std::vector<double> up = multiply(name(il, "ffn_up"), x);
                for (size_t c = 0; c < gate.size(); ++c) {
                    gate[c] = gate[c] / (1.0 + std::exp(-gate[c])) * up[c];
                }
                add(stream[i], multiply(name(il, "ffn_down"), gate));
            }
            out.attention.push_back(std::move(attention));
            out.queries.push_back(std::move(unrotated));
            out.keys.push_back(std::move(k));
            out.values.push_back(std::move(v));
        }
        for (const std::vector<double> & x : stream) {
            out.logits.push_back(multiply("output.weight", norm(x, "output_norm.weight")));
        }
        return out;
    }

  private:
    static std::string name(int32_t il, const std::string & part) {
        return "blk." + std::to_string(il) + "." + part + ".weight";
    }
    [[nodiscard]] std::vector<double> multiply(const std::string & matrix, const std::vector<double> & x) const {
        const std::vector<double> & w = weights_.at(matrix);
        std::vector<double> y(w.size() / x.size(), 0.0);
        for (size_t r = 0; r < y.size(); ++r) {
            for (size_t c = 0; c < x.size(); ++c) {
                y[r] += w[r * x.size() + c] * x[c];
            }
        }
        return y;
    }
    [[nodiscard]] std::vector<double> norm(const std::vector<double> & x, const std::string & weight) const {
        double sum = 0;
        for (const double value : x) {
            sum += value * value;
        }
        const double scale = 1.0 / std::sqrt(sum / static_cast<double>(x.size()) + 1e-5);
        std::vector<double> y = x;
        for (size_t i = 0; i < y.size(); ++i) {
            y[i] *= scale * weights_.at(weight)[i];
        }
        return y;
    }
    /// RoPE over neighbouring pairs.
    [[nodiscard]] std::vector<double> rotated(std::vector<double> x, size_t position) const {
        const auto d = static_cast<size_t>(shape_.head_dim);
        for (size_t i = 0; i < x.size(); i += 2) {
            const double exponent = static_cast<double>(i % d) / static_cast<double>(d);
            const double angle =
                static_cast<double>(position) * std::pow(static_cast<double>(shape_.rope_freq_base), -exponent);
            const double a = x[i], b = x[i + 1];
            x[i] = a * std::cos(angle) - b * std::sin(angle);
            x[i + 1] = a * std::sin(angle) + b * std::cos(angle);
        }
        return x;
    }
    static void add(std::vector<double> & x, const std::vector<double> & y) {
        for (size_t i = 0; i < x.size(); ++i) {
            x[i] += y[i];
        }
    }

    ModelShape shape_;
    std::map<std::string, std::vector<double>> weights_;
};

}  // namespace kvsieve::test
