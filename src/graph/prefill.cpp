// SPDX-License-Identifier: MIT
#include "graph/prefill.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <numeric>
#include <optional>
#include <utility>

#include "cache/check_plan.h"
#include "graph/forward.h"
#include "graph/observation.h"
#include "kvsieve/error.h"
#include "policy/clock.h"

namespace kvsieve {
namespace {

/// Attention of a chunk has at most so many scores [n_head][n][n_kv], so that a step of a long prompt stays short.
constexpr int64_t kChunkScores = int64_t{1} << 26;
constexpr size_t kMaxNodes = 128;

/// What step() does, in this order: the first two for each chunk of a layer, `store` for each layer. `attend` leaves
/// the heads' outputs in a buffer, `feed_forward` takes them from there.
enum class Part { attend, feed_forward, store, plan, none };

int32_t chunk_tokens(const DecoderConfig & config, int32_t n_tokens) {
    const int64_t per_query = int64_t{config.n_head} * n_tokens;
    const int64_t blocks = kChunkScores / per_query / kQueryBlock;
    return static_cast<int32_t>(std::clamp<int64_t>(blocks * kQueryBlock, kQueryBlock, kChunkTokens));
}

}  // namespace

struct Prefill::Impl {
    GraphRunner & runner;
    const Decoder & decoder;
    RaggedKvCache & cache;
    const Method & method;
    PromptShape shape;
    std::vector<float> residual;  // [n_alive][n_embd]
    std::vector<float> heads;     // [chunk][n_head][head_dim]
    bool observe;
    Planner planner;
    ResidualObserver on_residual;

    Traits traits;  // all off without observation
    LayerKv kv;
    PrefillAttention attention;
    std::optional<LayerCapture> capture;
    std::vector<int32_t> positions;  // [n_alive] of the tokens in the residual stream
    int32_t n_alive = 0;
    int32_t chunk = 0;  // most tokens of a step
    LayerPlan pruned;   // of the layers from traits.prune_layer on

    Part part = Part::attend;                                              // the next one
    std::array<double, static_cast<size_t>(Part::none) + 1> took_ms = {};  // by the last of each kind
    int32_t il = 0;
    int32_t first = 0;
    double steps_done = 0, steps_all = 0;  // (token, layer) pairs
    std::vector<LayerScore> scores;        // [n_layer]
    std::vector<float> logits;
    Plan plan;
    PrefillTimes times;
    uint64_t peak = 0;
    uint64_t buffer_peak = 0;

    Impl(GraphRunner & runner_, const Decoder & decoder_, RaggedKvCache & cache_, const Method & method_,
         PromptShape shape_, std::vector<float> residual_, bool observe_, Planner planner_, const ProbeSource & source)
        : runner(runner_),
          decoder(decoder_),
          cache(cache_),
          method(method_),
          shape(std::move(shape_)),
          residual(std::move(residual_)),
          observe(observe_),
          planner(std::move(planner_)),
          kv(decoder_.config(), shape.n_tokens),
          attention(decoder_.config(), runner_.n_threads()),
          n_alive(shape.n_tokens) {
        const DecoderConfig & config = decoder.config();
        if (observe) {
            traits = method.traits();
        }
        if (traits.query_stats) {
            shape.rope = rope_shape(decoder);
        }
        if (traits.probes && source.factors == nullptr) {
            throw Error(ErrorCode::invalid_argument,
                        "a method that observes probe queries needs the factors of the model's output projections");
        }
        method.check(shape);
        capture.emplace(runner, decoder, kv, traits, shape, source);
        positions.resize(static_cast<size_t>(shape.n_tokens));
        std::iota(positions.begin(), positions.end(), 0);
        choose_chunk();
        steps_all = static_cast<double>(config.n_layer) * n_alive;
        scores.resize(static_cast<size_t>(config.n_layer));
        logits.resize(static_cast<size_t>(config.n_vocab));
        note_buffers();
    }

    void choose_chunk() {
        const DecoderConfig & config = decoder.config();
        chunk = std::min(chunk_tokens(config, n_alive), n_alive);
        heads.resize(static_cast<size_t>(chunk) * static_cast<size_t>(config.n_head) *
                     static_cast<size_t>(config.head_dim));
    }

    void note_buffers() {
        buffer_peak = std::max<uint64_t>(buffer_peak, (residual.capacity() + heads.capacity()) * sizeof(float) +
                                                          attention.bytes() + capture->bytes());
    }

    /// Does the method look at the layer in work?
    [[nodiscard]] bool observed() const { return observe && (traits.prune_layer == 0 || il == traits.prune_layer - 1); }

    [[nodiscard]] int32_t chunk_size() const { return std::min(chunk, n_alive - first); }
    [[nodiscard]] bool last_layer() const { return il + 1 == decoder.config().n_layer; }

    void attend() {
        if (first == 0 && on_residual) {
            on_residual(il, residual);
        }
        if (first == 0 && observed()) {
            capture->begin_layer();
            note_buffers();
        }
        const int32_t n = chunk_size();
        ColumnSums * sums = observed() ? capture->sums() : nullptr;
        // of the last layer nobody reads what tokens before the last chunk would become
        const bool goes_on = !last_layer() || first + n == n_alive;
        runner.run(kMaxNodes + attention.nodes(first, n), [&](GraphBuilder & b) {
            ggml_tensor * pos = b.external(GGML_TYPE_I32, n, 1, 1, positions.data() + first);
            const Qkv qkv = decoder.qkv(b, il, stream(b, first, n), pos);
            kv.store(b, first, qkv.k, qkv.v);
            if (observed()) {
                capture->add_queries(b, first, qkv);
            }
            if (goes_on || sums != nullptr) {
                attention.build(b, kv, first, qkv.q, sums, heads.data());
            }
        });
        note_buffers();
        if (goes_on) {
            part = Part::feed_forward;
        } else {
            end_chunk();
        }
    }

    void feed_forward() {
        const DecoderConfig & config = decoder.config();
        const int64_t width = int64_t{config.n_head} * config.head_dim;
        const int32_t n = last_layer() ? 1 : chunk_size();  // the last token's logits are all that is wanted
        const int32_t skipped = chunk_size() - n;
        runner.run(kMaxNodes, [&](GraphBuilder & b) {
            ggml_tensor * from = stream(b, first + skipped, n);
            ggml_tensor * x = decoder.finish_layer(
                b, il, from, b.external(GGML_TYPE_F32, width, n, 1, heads.data() + skipped * width));
            b.expand(last_layer() ? ggml_cpy(b.ctx, decoder.logits(b, x),
                                             b.external(GGML_TYPE_F32, config.n_vocab, 1, 1, logits.data()))
                                  : ggml_cpy(b.ctx, x, from));
        });
        end_chunk();
    }

    /// The residual stream of n tokens, to be read or written.
    [[nodiscard]] ggml_tensor * stream(const GraphBuilder & b, int32_t from, int32_t n) {
        const int32_t n_embd = decoder.config().n_embd;
        return b.external(GGML_TYPE_F32, n_embd, n, 1,
                          residual.data() + static_cast<size_t>(from) * static_cast<size_t>(n_embd));
    }

    void end_chunk() {
        const int32_t n = chunk_size();
        first += n;
        steps_done += n;
        part = first == n_alive ? Part::store : Part::attend;
    }

    /// Tokens that the plan drops leave before the next layer. The last one stays: its logits are wanted.
    void prune() {
        const auto n_embd = static_cast<int64_t>(decoder.config().n_embd);
        const std::vector<int32_t> & kept = pruned.kept.front();
        int32_t n = 0;
        for (int32_t i = 0; i < n_alive; ++i) {
            if (i + 1 < n_alive && !std::binary_search(kept.begin(), kept.end(), positions[static_cast<size_t>(i)])) {
                continue;
            }
            std::copy_n(residual.begin() + i * n_embd, n_embd, residual.begin() + n * n_embd);
            positions[static_cast<size_t>(n)] = positions[static_cast<size_t>(i)];
            ++n;
        }
        steps_all -= static_cast<double>(shape.n_layer - traits.prune_layer) * (n_alive - n);
        n_alive = n;
        positions.resize(static_cast<size_t>(n));
        residual.resize(static_cast<size_t>(n * n_embd));
        residual.shrink_to_fit();
        kv.shrink(n);
        choose_chunk();
        note_buffers();
    }

    /// The plan of all layers from prune_layer on, from the score of the layer before.
    void choose_pruned(const LayerScore & score) {
        pruned = method.plan_layer(shape, traits.prune_layer, score);
        check_layer_plan(pruned, traits.prune_layer, 1, shape.n_tokens);
    }

    void resume(const LayerScore & score) {
        il = traits.prune_layer;
        steps_done = static_cast<double>(il) * n_alive;
        scores[static_cast<size_t>(il) - 1] = score;
        choose_pruned(score);
        prune();
    }

    void store() {
        const auto plan_start = std::chrono::steady_clock::now();
        const bool prunes = traits.prune_layer > 0;
        const bool prunes_next = prunes && il + 1 == traits.prune_layer && traits.prune_layer < shape.n_layer;
        LayerPlan layer_plan;
        const LayerPlan * kept = nullptr;  // everything
        if (observed()) {
            scores[static_cast<size_t>(il)] = capture->score(method, il);
        }
        if (prunes) {
            kept = il < traits.prune_layer ? nullptr : &pruned;
        } else if (observe && traits.layerwise) {
            layer_plan = method.plan_layer(shape, il, scores[static_cast<size_t>(il)]);
            kept = &layer_plan;
        }
        if (prunes_next) {
            choose_pruned(scores[static_cast<size_t>(il)]);
        }
        times.plan_ms += ms_since(plan_start);

        const auto store_start = std::chrono::steady_clock::now();
        // an empty list says 0 .. T-1
        const std::span<const int32_t> held = n_alive < shape.n_tokens ? positions : std::span<const int32_t>();
        cache.store_layer(il, {kv.keys(), 0, kv.head_stride()}, {kv.values(), 0, kv.head_stride()}, n_alive, kept, held,
                          runner.n_threads());
        peak = std::max(peak, cache.bytes_reserved() + kv.bytes());
        if (prunes_next) {
            prune();
        }
        times.compact_ms += ms_since(store_start);
        first = 0;
        ++il;
        part = il == shape.n_layer ? Part::plan : Part::attend;
    }

    void finish() {
        const auto plan_start = std::chrono::steady_clock::now();
        if (observe) {
            plan = planner ? planner(shape, scores) : method.plan(shape, scores);
        } else {
            plan.keeps_everything = true;
            plan.layers.assign(static_cast<size_t>(shape.n_layer), LayerPlan{{positions}});
        }
        times.plan_ms += ms_since(plan_start);
        const auto compact_start = std::chrono::steady_clock::now();
        if (observe && !traits.layerwise && traits.prune_layer == 0) {
            cache.compact(plan);
        }
        times.compact_ms += ms_since(compact_start);
        part = Part::none;
    }

    void step() {
        const auto start = std::chrono::steady_clock::now();
        const Part now = part;
        switch (now) {
            case Part::attend:
                attend();
                break;
            case Part::feed_forward:
                feed_forward();
                break;
            case Part::store:
                store();
                break;
            case Part::plan:
                finish();
                break;
            case Part::none:
                return;
        }
        const double ms = ms_since(start);
        took_ms[static_cast<size_t>(now)] = ms;
        if (now == Part::attend || now == Part::feed_forward) {
            times.compute_ms += ms;
        }
    }
};

Prefill::Prefill(GraphRunner & runner, const Decoder & decoder, RaggedKvCache & cache, const Method & method,
                 PromptShape shape, std::vector<float> residual, bool observe, Planner planner,
                 const ProbeSource & source)
    : impl_(std::make_unique<Impl>(runner, decoder, cache, method, std::move(shape), std::move(residual), observe,
                                   std::move(planner), source)) {}

Prefill::Prefill(GraphRunner & runner, const Decoder & decoder, RaggedKvCache & cache, const Method & method,
                 PromptShape shape, std::vector<float> residual, const LayerScore & score)
    : Prefill(runner, decoder, cache, method, std::move(shape), std::move(residual), true) {
    impl_->resume(score);
}

Prefill::~Prefill() = default;

void Prefill::on_residual(ResidualObserver observer) {
    impl_->on_residual = std::move(observer);
}

void Prefill::use_attention_kernel(bool yes) {
    impl_->attention.use_kernel(yes);
}

bool Prefill::step() {
    impl_->step();
    return !done();
}

bool Prefill::next_fits(double spent_ms, double limit_ms) const {
    const auto & took = impl_->took_ms;
    const double next_ms = took[static_cast<size_t>(impl_->part)];
    return spent_ms + next_ms <= std::max(limit_ms, *std::max_element(took.begin(), took.end()));
}

bool Prefill::done() const {
    return impl_->part == Part::none;
}

double Prefill::progress() const {
    return impl_->steps_done / impl_->steps_all;
}

Plan Prefill::take_plan() {
    return std::move(impl_->plan);
}

const PromptShape & Prefill::shape() const {
    return impl_->shape;
}

std::vector<float> Prefill::take_logits() {
    return std::move(impl_->logits);
}

const PrefillTimes & Prefill::times() const {
    return impl_->times;
}

uint64_t Prefill::layer_kv_bytes() const {
    return impl_->kv.bytes();
}

uint64_t Prefill::peak_kv_bytes() const {
    return impl_->peak;
}

uint64_t Prefill::buffer_bytes() const {
    return impl_->buffer_peak;
}

}  // namespace kvsieve
