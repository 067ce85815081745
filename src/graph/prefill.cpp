// SPDX-License-Identifier: MIT
#include "graph/prefill.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <string>
#include <utility>

#include "graph/forward.h"
#include "graph/prefill_attention.h"
#include "kvsieve/error.h"

namespace kvsieve {
namespace {

/// Attention of a chunk [n_head][n][n_kv] in f32 takes at most this much.
constexpr int64_t kAttentionBytes = int64_t{64} << 20;
constexpr int32_t kMinChunk = 16;

double ms_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

int32_t chunk_tokens(const DecoderConfig & config, int32_t n_tokens) {
    const int64_t per_query = int64_t{config.n_head} * n_tokens * static_cast<int64_t>(sizeof(float));
    return static_cast<int32_t>(std::clamp<int64_t>(kAttentionBytes / per_query, kMinChunk, kChunkTokens));
}

/// First query whose attention rows the method may ask for; n_tokens = none.
int32_t first_row(const Traits & traits, const PromptShape & shape) {
    switch (traits.rows) {
        case RowsWanted::none:
            return shape.n_tokens;
        case RowsWanted::last_window:
            return std::max(0, shape.n_tokens - traits.window);
        case RowsWanted::text_after_visual: {
            int32_t first = shape.n_tokens;
            while (first > 0 && (shape.visual_mask.empty() || shape.visual_mask[static_cast<size_t>(first) - 1] == 0)) {
                --first;
            }
            return first;
        }
    }
    return shape.n_tokens;
}

/// The layer in work as a method sees it.
class EngineObservation final : public LayerObservation {
  public:
    EngineObservation(GraphRunner & runner, const DecoderConfig & config, const LayerKv & kv,
                      std::span<const int32_t> positions, std::span<const float> queries)
        : runner_(runner), config_(config), kv_(kv), queries_(queries) {
        row_positions = positions;
    }

    void rows(std::span<const int32_t> positions, std::vector<float> & out) const override {
        const auto width = static_cast<size_t>(config_.n_head) * static_cast<size_t>(config_.head_dim);
        std::vector<float> asked;
        asked.reserve(positions.size() * width);
        for (const int32_t position : positions) {
            const auto found = std::lower_bound(row_positions.begin(), row_positions.end(), position);
            if (found == row_positions.end() || *found != position) {
                throw Error(ErrorCode::invalid_argument, "the attention row of position " + std::to_string(position) +
                                                             " was asked for, expected one of those observed");
            }
            const auto query = queries_.subspan(static_cast<size_t>(found - row_positions.begin()) * width, width);
            asked.insert(asked.end(), query.begin(), query.end());
        }
        attention_rows(runner_, config_, kv_, positions, asked, out);
    }

  private:
    GraphRunner & runner_;
    const DecoderConfig & config_;
    const LayerKv & kv_;
    std::span<const float> queries_;  // [row_positions.size()][n_head][head_dim]
};

}  // namespace

struct Prefill::Impl {
    GraphRunner & runner;
    const Decoder & decoder;
    RaggedKvCache & cache;
    const Method & method;
    PromptShape shape;
    std::vector<float> residual;  // [n_tokens][n_embd]
    bool observe;

    Traits traits;  // all off without observation
    LayerKv kv;
    ColumnSums sums;
    bool capture_sums = false;
    std::vector<int32_t> positions;  // [n_tokens]
    int32_t row_first = 0;           // queries from here on are saved
    std::vector<float> queries;      // [n_tokens - row_first][n_head][head_dim]
    int32_t chunk = 0;               // tokens of a step

    int32_t il = 0;
    int32_t first = 0;
    std::vector<LayerScore> scores;  // [n_layer]
    std::vector<float> logits;
    Plan plan;
    PrefillTimes times;
    uint64_t peak = 0;

    Impl(GraphRunner & runner_, const Decoder & decoder_, RaggedKvCache & cache_, const Method & method_,
         PromptShape shape_, std::vector<float> residual_, bool observe_)
        : runner(runner_),
          decoder(decoder_),
          cache(cache_),
          method(method_),
          shape(std::move(shape_)),
          residual(std::move(residual_)),
          observe(observe_),
          kv(decoder_.config(), shape.n_tokens) {
        const DecoderConfig & config = decoder.config();
        method.check(shape);
        if (observe) {
            traits = method.traits();
        }
        capture_sums = traits.importance || traits.colsum;
        positions.resize(static_cast<size_t>(shape.n_tokens));
        std::iota(positions.begin(), positions.end(), 0);
        row_first = first_row(traits, shape);
        queries.resize(static_cast<size_t>(shape.n_tokens - row_first) * static_cast<size_t>(config.n_head) *
                       static_cast<size_t>(config.head_dim));
        chunk = chunk_tokens(config, shape.n_tokens);
        scores.resize(static_cast<size_t>(config.n_layer));
        logits.resize(static_cast<size_t>(config.n_vocab));
    }

    void run_chunk() {
        const DecoderConfig & config = decoder.config();
        const int32_t n = std::min(chunk, shape.n_tokens - first);
        const bool last_layer = il + 1 == config.n_layer;
        const bool last_chunk = first + n == shape.n_tokens;
        if (first == 0 && capture_sums) {
            sums.reset(config.n_head, shape.n_tokens);
        }
        runner.run(128, [&](GraphBuilder & b) {
            float * stream_data = residual.data() + static_cast<size_t>(first) * static_cast<size_t>(config.n_embd);
            ggml_tensor * stream = b.external(GGML_TYPE_F32, config.n_embd, n, 1, stream_data);
            ggml_tensor * pos = b.external(GGML_TYPE_I32, n, 1, 1, positions.data() + first);
            const Qkv qkv = decoder.qkv(b, il, stream, pos);
            kv.store(b, first, qkv.k, qkv.v);
            save_queries(b, qkv.q, n);
            if (last_layer && !last_chunk && !capture_sums) {
                return;  // nobody reads what these tokens would become
            }
            ggml_tensor * heads = prefill_attention(b, config, kv, first, qkv.q, capture_sums ? &sums : nullptr);
            if (!last_layer) {
                b.expand(ggml_cpy(b.ctx, decoder.finish_layer(b, il, stream, heads), stream));
            } else if (!last_chunk) {
                b.expand(heads);
            } else {
                const auto last_row = [&](ggml_tensor * x) {
                    return ggml_view_2d(b.ctx, x, x->ne[0], 1, x->nb[1], static_cast<size_t>(n - 1) * x->nb[1]);
                };
                ggml_tensor * x = decoder.finish_layer(b, il, last_row(stream), last_row(heads));
                b.expand(ggml_cpy(b.ctx, decoder.logits(b, x),
                                  b.external(GGML_TYPE_F32, config.n_vocab, 1, 1, logits.data())));
            }
        });
        first += n;
    }

    /// Copies the queries whose rows may be asked for, those from row_first on.
    void save_queries(const GraphBuilder & b, ggml_tensor * q, int32_t n) {
        const DecoderConfig & config = decoder.config();
        const int32_t from = std::max(first, row_first);
        if (from >= first + n) {
            return;
        }
        const int32_t count = first + n - from;
        const auto width = static_cast<size_t>(config.n_head) * static_cast<size_t>(config.head_dim);
        ggml_tensor * part = ggml_view_3d(b.ctx, q, config.head_dim, config.n_head, count, q->nb[1], q->nb[2],
                                          static_cast<size_t>(from - first) * q->nb[2]);
        b.expand(ggml_cpy(b.ctx, part,
                          b.external(GGML_TYPE_F32, config.head_dim, config.n_head, count,
                                     queries.data() + static_cast<size_t>(from - row_first) * width)));
    }

    LayerScore score_layer() {
        const DecoderConfig & config = decoder.config();
        const std::span<const int32_t> rows(positions.data() + row_first,
                                            positions.size() - static_cast<size_t>(row_first));
        EngineObservation observation(runner, config, kv, rows, queries);
        const auto n_tokens = static_cast<size_t>(shape.n_tokens);
        std::vector<float> importance, keys, values;
        if (traits.importance) {
            importance.resize(n_tokens);
            for (size_t k = 0; k < n_tokens; ++k) {
                double sum = 0;
                for (size_t h = 0; h < static_cast<size_t>(config.n_head); ++h) {
                    sum += static_cast<double>(sums.sums[h * n_tokens + k]);
                }
                importance[k] = static_cast<float>(sum / config.n_head);
            }
            observation.importance = importance;
        }
        if (traits.colsum) {
            observation.colsum = sums.sums;
        }
        const auto to_float = [&](const ggml_fp16_t * from, std::vector<float> & to) {
            to.resize(n_tokens * static_cast<size_t>(config.n_head_kv) * static_cast<size_t>(config.head_dim));
            ggml_fp16_to_fp32_row(from, to.data(), static_cast<int64_t>(to.size()));
        };
        if (traits.keys) {
            to_float(kv.keys(), keys);
            observation.keys = keys;
        }
        if (traits.values) {
            to_float(kv.values(), values);
            observation.values = values;
        }
        return method.score(shape, il, observation);
    }

    void finish_layer() {
        const auto plan_start = std::chrono::steady_clock::now();
        LayerScore & score = scores[static_cast<size_t>(il)];
        LayerPlan kept;
        if (observe) {
            score = score_layer();
            if (traits.layerwise) {
                kept = method.plan_layer(shape, il, score);
            }
        }
        times.plan_ms += ms_since(plan_start);

        const auto store_start = std::chrono::steady_clock::now();
        cache.store_layer(il, {kv.keys()}, {kv.values()}, shape.n_tokens,
                          observe && traits.layerwise ? &kept : nullptr);
        times.compact_ms += ms_since(store_start);
        peak = std::max(peak, cache.bytes_reserved() + kv.bytes());
        first = 0;
        ++il;
    }

    void finish() {
        const auto plan_start = std::chrono::steady_clock::now();
        if (observe) {
            plan = method.plan(shape, scores);
        } else {
            plan.keeps_everything = true;
            plan.layers.assign(static_cast<size_t>(shape.n_layer), LayerPlan{{positions}});
        }
        times.plan_ms += ms_since(plan_start);
        const auto compact_start = std::chrono::steady_clock::now();
        if (observe && !traits.layerwise) {
            cache.compact(plan);
        }
        times.compact_ms += ms_since(compact_start);
    }
};

Prefill::Prefill(GraphRunner & runner, const Decoder & decoder, RaggedKvCache & cache, const Method & method,
                 PromptShape shape, std::vector<float> residual, bool observe)
    : impl_(std::make_unique<Impl>(runner, decoder, cache, method, std::move(shape), std::move(residual), observe)) {}

Prefill::~Prefill() = default;

bool Prefill::step() {
    if (done()) {
        return false;
    }
    Impl & m = *impl_;
    const auto start = std::chrono::steady_clock::now();
    m.run_chunk();
    m.times.compute_ms += ms_since(start);
    if (m.first == m.shape.n_tokens) {
        m.finish_layer();
        if (m.il == m.shape.n_layer) {
            m.finish();
        }
    }
    return !done();
}

bool Prefill::done() const {
    return impl_->il == impl_->shape.n_layer;
}

double Prefill::progress() const {
    const double layer = impl_->first / static_cast<double>(impl_->shape.n_tokens);
    return (impl_->il + layer) / impl_->shape.n_layer;
}

Plan Prefill::take_plan() {
    return std::move(impl_->plan);
}

std::vector<float> Prefill::take_logits() {
    return std::move(impl_->logits);
}

const PrefillTimes & Prefill::times() const {
    return impl_->times;
}

uint64_t Prefill::peak_kv_bytes() const {
    return impl_->peak;
}

uint64_t Prefill::buffer_bytes() const {
    return (impl_->residual.capacity() + impl_->queries.capacity() + impl_->sums.sums.capacity()) * sizeof(float);
}

}  // namespace kvsieve
