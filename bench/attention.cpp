// SPDX-License-Identifier: MIT
// The attention of one new token per sequence, without the rest of a model: the decode kernel against ggml's operation
// over the same rows and against the machine's read bandwidth. One JSON line per shape.
//   kvsieve_attention_cost [ROWS THREADS REPEATS], default 2048 2 9
// A step appends each new row and attends, layer after layer, over more memory than caches hold. The kernel's output
// is compared with ggml's before anything is timed. Kernel, ggml and plain reading take turns; `_ms` are the best and
// the median of the repeats, `_gbps` count the rows' bytes in the best.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "graph/attention_kernel.h"
#include "graph/lane_attention.h"
#include "graph/ragged_attention.h"
#include "timing.h"

using namespace kvsieve;

namespace {

constexpr size_t kMinBytes = PlainReading::kBytes;  // of rows
constexpr double kBound = 0.02;                     // of outputs around 1: ggml rounds queries to the rows' type

struct Shape {
    int32_t n_head, n_head_kv, n_seq;
    KvType type;
};

constexpr int32_t kHeadDim = 128;

struct Arguments {
    int32_t n_rows = 2048, n_threads = 2, n_repeat = 9;
};

template <typename T>
std::vector<T> made_up(size_t n, uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<T> out(n);
    for (T & x : out) {
        if constexpr (std::is_same_v<T, float>) {
            x = normal(random);
        } else {
            x = ggml_fp32_to_fp16(normal(random));
        }
    }
    return out;
}

/// The caches of a step's sequences.
class Step {
  public:
    Step(const Shape & shape, const Arguments & arguments, GraphRunner & runner) : runner_(runner) {
        const auto per_layer = static_cast<size_t>(arguments.n_rows) * elements(shape.n_head_kv);
        const size_t row_bytes = ggml_row_size(ggml_type_of(shape.type), kHeadDim);
        const size_t layer_bytes = 2 * row_bytes * static_cast<size_t>(arguments.n_rows) *
                                   static_cast<size_t>(shape.n_head_kv) * static_cast<size_t>(shape.n_seq);
        config_.n_layer = static_cast<int32_t>((kMinBytes + layer_bytes - 1) / layer_bytes);
        config_.n_head = shape.n_head;
        config_.n_head_kv = shape.n_head_kv;
        config_.head_dim = kHeadDim;
        config_.kq_scale = 1 / std::sqrt(static_cast<float>(kHeadDim));
        bytes_ = layer_bytes * static_cast<size_t>(config_.n_layer);
        const std::vector<ggml_fp16_t> keys = made_up<ggml_fp16_t>(per_layer, 1);
        const std::vector<ggml_fp16_t> values = made_up<ggml_fp16_t>(per_layer, 2);
        for (int32_t s = 0; s < shape.n_seq; ++s) {
            caches_.emplace_back(KvCacheParams{config_.n_layer, config_.n_head_kv, config_.head_dim, shape.type, true});
            for (int32_t il = 0; il < config_.n_layer; ++il) {
                caches_.back().store_layer(il, {.data = keys.data()}, {.data = values.data()}, arguments.n_rows);
            }
        }
        n_rows_ = arguments.n_rows;
        q_ = made_up<float>(caches_.size() * elements(shape.n_head), 3);
        k_ = made_up<float>(caches_.size() * elements(shape.n_head_kv), 4);
        v_ = made_up<float>(caches_.size() * elements(shape.n_head_kv), 5);
    }

    [[nodiscard]] size_t bytes() const { return bytes_; }
    [[nodiscard]] int32_t n_layer() const { return config_.n_layer; }

    /// The last layer's output, [n_seq][H * d]; `ms`, if not null, is the time without what puts the caches back.
    std::vector<float> run(bool kernel, double * ms = nullptr) {
        std::vector<float> out(q_.size());
        const double taken = ms_of([&] {
            if (kernel) {
                run_kernel(out);
            } else {
                run_reference(out);
            }
        });
        if (ms != nullptr) {
            *ms = taken;
        }
        for (RaggedKvCache & cache : caches_) {
            cache.truncate(n_rows_);
        }
        return out;
    }

  private:
    /// As the engine decodes: all sequences in the same nodes.
    void run_kernel(std::vector<float> & out) {
        std::vector<Lane> lanes;
        for (RaggedKvCache & cache : caches_) {
            lanes.push_back({&cache, n_rows_, nullptr});
        }
        LaneAttention attention(lanes, config_);
        runner_.run(16 * static_cast<size_t>(config_.n_layer) + 16, [&](GraphBuilder & b) {
            ggml_tensor * heads = nullptr;
            for (int32_t il = 0; il < config_.n_layer; ++il) {
                heads = b.expand(attention.build(b, il, tokens(b, 0, caches_.size())));
            }
            b.expand(ggml_cpy(b.ctx, heads, b.external(GGML_TYPE_F32, heads->ne[0], heads->ne[1], 1, out.data())));
        });
        attention.check();
    }

    /// With ggml's operation, one sequence after the other.
    void run_reference(std::vector<float> & out) {
        std::vector<std::unique_ptr<RaggedAttention>> attentions;
        for (RaggedKvCache & cache : caches_) {
            attentions.push_back(std::make_unique<RaggedAttention>(
                cache, config_, 1, n_rows_, AttentionOptions{.newest = nullptr, .kernel = false}));
        }
        const size_t n_nodes = 16 * static_cast<size_t>(config_.n_layer) * caches_.size() + 16;
        runner_.run(n_nodes, [&](GraphBuilder & b) {
            for (int32_t il = 0; il < config_.n_layer; ++il) {
                for (size_t i = 0; i < attentions.size(); ++i) {
                    ggml_tensor * heads = b.expand(attentions[i]->build(b, il, tokens(b, i, 1)));
                    float * to = out.data() + i * static_cast<size_t>(heads->ne[0]);
                    if (il + 1 == config_.n_layer) {
                        b.expand(ggml_cpy(b.ctx, heads, b.external(GGML_TYPE_F32, heads->ne[0], 1, 1, to)));
                    }
                }
            }
        });
        for (const auto & attention : attentions) {
            attention->check();
        }
    }

    /// The new tokens of the sequences from `first` on.
    Qkv tokens(const GraphBuilder & b, size_t first, size_t n) {
        const auto part = [&](std::vector<float> & x, int32_t n_head) {
            return b.external(GGML_TYPE_F32, kHeadDim, n_head, static_cast<int64_t>(n),
                              x.data() + first * elements(n_head));
        };
        Qkv qkv;
        qkv.q = part(q_, config_.n_head);
        qkv.k = part(k_, config_.n_head_kv);
        qkv.v = part(v_, config_.n_head_kv);
        return qkv;
    }

    /// Of one token in so many heads.
    static size_t elements(int32_t n_head) { return static_cast<size_t>(n_head) * size_t{kHeadDim}; }
    static ggml_type ggml_type_of(KvType type) {
        return type == KvType::f16 ? GGML_TYPE_F16 : type == KvType::q8_0 ? GGML_TYPE_Q8_0 : GGML_TYPE_Q4_0;
    }

    GraphRunner & runner_;
    DecoderConfig config_;
    std::vector<RaggedKvCache> caches_;  // [n_seq]
    std::vector<float> q_, k_, v_;       // of the new tokens, [n_seq][heads][d]
    size_t bytes_ = 0;
    int32_t n_rows_ = 0;
};

void measure(const Shape & shape, const Arguments & arguments, PlainReading & reading, GraphRunner & runner) {
    Step step(shape, arguments, runner);
    const double difference = checked_difference("the kernel's attention", step.run(true), step.run(false), kBound);
    nlohmann::ordered_json line;
    line["n_head"] = shape.n_head;
    line["n_head_kv"] = shape.n_head_kv;
    line["head_dim"] = kHeadDim;
    line["kv_type"] = kv_type_name(shape.type);
    line["n_rows"] = arguments.n_rows;
    line["n_seq"] = shape.n_seq;
    line["n_layer"] = step.n_layer();
    line["threads"] = arguments.n_threads;
    line["target"] = attention_kernel_target();
    line["max_difference"] = difference;
    time_in_turns(line, arguments.n_repeat, reading, {[&](double & ms) { step.run(true, &ms); }, step.bytes()},
                  {[&](double & ms) { step.run(false, &ms); }, step.bytes()});
    line["layer_us"] = 1e3 * line["kernel_ms"].get<double>() / step.n_layer() / shape.n_seq;  // of one sequence
    std::printf("%s\n", line.dump().c_str());
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char ** argv) {
    try {
        Arguments arguments;
        int32_t * const all[] = {&arguments.n_rows, &arguments.n_threads, &arguments.n_repeat};
        if (argc > 4) {
            throw std::runtime_error("expected at most ROWS THREADS REPEATS");
        }
        for (int i = 1; i < argc; ++i) {
            *all[i - 1] = number(argv[i]);
        }
        PlainReading reading(arguments.n_threads);
        GraphRunner runner(arguments.n_threads);
        for (const KvType type : {KvType::f16, KvType::q8_0, KvType::q4_0}) {
            for (const int32_t n_seq : {1, 4, 8}) {
                measure({16, 16, n_seq, type}, arguments, reading, runner);
            }
            measure({28, 4, 1, type}, arguments, reading, runner);
        }
    } catch (const std::exception & e) {
        std::fprintf(stderr, "kvsieve_attention_cost: %s\n", e.what());
        return 1;
    }
    return 0;
}
