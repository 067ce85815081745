// SPDX-License-Identifier: MIT
#include "graph/observation.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "kvsieve/error.h"

namespace kvsieve {
namespace {

/// The layer in work as a method sees it.
class EngineObservation final : public LayerObservation {
  public:
    EngineObservation(GraphRunner & runner, const DecoderConfig & config, const LayerKv & kv,
                      std::span<const int32_t> positions, std::span<const float> saved)
        : runner_(runner), config_(config), kv_(kv), queries_(saved) {
        row_positions = positions;
    }

    void rows(std::span<const int32_t> positions, std::vector<float> & out) const override {
        for (const int32_t position : positions) {
            if (row_positions.empty() || position < row_positions.front() || position > row_positions.back()) {
                throw Error(ErrorCode::invalid_argument, "the attention row of position " + std::to_string(position) +
                                                             " was asked for, expected one of those observed");
            }
        }
        const auto n_kv = static_cast<size_t>(kv_.n_tokens());
        const auto n_head = static_cast<size_t>(config_.n_head);
        out.resize(n_head * positions.size() * n_kv);
        std::vector<float> block;  // [n_head][kRowBlock][n_kv]
        int32_t in_block = -1;
        for (size_t i = 0; i < positions.size(); ++i) {
            if (positions[i] / kRowBlock != in_block) {
                in_block = positions[i] / kRowBlock;
                compute(in_block * kRowBlock, block);
            }
            const auto row = static_cast<size_t>(positions[i] % kRowBlock);
            for (size_t h = 0; h < n_head; ++h) {
                std::copy_n(block.begin() + static_cast<int64_t>((h * kRowBlock + row) * n_kv), n_kv,
                            out.begin() + static_cast<int64_t>((h * positions.size() + i) * n_kv));
            }
        }
    }

  private:
    /// Rows of the queries first .. first + kRowBlock - 1; what is not observed of them counts as a zero query.
    void compute(int32_t first, std::vector<float> & out) const {
        const auto width = static_cast<size_t>(config_.n_head) * static_cast<size_t>(config_.head_dim);
        std::vector<float> asked(kRowBlock * width);
        std::vector<int32_t> positions(kRowBlock);
        for (int32_t i = 0; i < kRowBlock; ++i) {
            const int32_t position = first + i;
            positions[static_cast<size_t>(i)] = std::min(position, row_positions.back());
            if (position >= row_positions.front() && position <= row_positions.back()) {
                std::copy_n(queries_.begin() +
                                static_cast<int64_t>(position - row_positions.front()) * static_cast<int64_t>(width),
                            width, asked.begin() + int64_t{i} * static_cast<int64_t>(width));
            }
        }
        attention_rows(runner_, config_, kv_, positions, asked, out);
    }

    GraphRunner & runner_;
    const DecoderConfig & config_;
    const LayerKv & kv_;
    std::span<const float> queries_;  // [row_positions.size()][n_head][head_dim]
};

/// Queries [head_dim, n_head, n] of tokens from `first` on into a buffer that begins with token `saved_first`.
void save_queries(const GraphBuilder & b, const DecoderConfig & config, ggml_tensor * q, int32_t first,
                  int32_t saved_first, std::vector<float> & buffer) {
    const auto n = static_cast<int32_t>(q->ne[2]);
    const int32_t from = std::max(first, saved_first);
    if (from >= first + n) {
        return;
    }
    const int32_t count = first + n - from;
    const auto width = static_cast<size_t>(config.n_head) * static_cast<size_t>(config.head_dim);
    ggml_tensor * part = ggml_view_3d(b.ctx, q, config.head_dim, config.n_head, count, q->nb[1], q->nb[2],
                                      static_cast<size_t>(from - first) * q->nb[2]);
    b.expand(ggml_cpy(b.ctx, part,
                      b.external(GGML_TYPE_F32, config.head_dim, config.n_head, count,
                                 buffer.data() + static_cast<size_t>(from - saved_first) * width)));
}

/// First token behind the last visual one.
int32_t behind_visual(const PromptShape & shape) {
    const auto last =
        std::find_if(shape.visual_mask.rbegin(), shape.visual_mask.rend(), [](uint8_t visual) { return visual != 0; });
    return static_cast<int32_t>(shape.visual_mask.rend() - last);
}

/// Queries of the prompt itself that take the place of probes. Queries of visual tokens ask for other things than an
/// answer does.
int32_t n_own_probes(const PromptShape & shape) {
    const int32_t n_text = shape.n_tokens - behind_visual(shape);
    return std::min(n_text > 0 ? n_text : shape.n_tokens, kOwnProbes);
}

}  // namespace

int32_t first_row(const Traits & traits, const PromptShape & shape) {
    switch (traits.rows) {
        case RowsWanted::none:
            return shape.n_tokens;
        case RowsWanted::last_window:
            return std::max(0, shape.n_tokens - traits.window);
        case RowsWanted::text_after_visual:
            return behind_visual(shape);
    }
    return shape.n_tokens;
}

LayerCapture::LayerCapture(GraphRunner & runner, const Decoder & decoder, const LayerKv & kv, const Traits & traits,
                           const PromptShape & shape, const ProbeSource & source)
    : runner_(runner),
      decoder_(decoder),
      config_(decoder.config()),
      kv_(kv),
      traits_(traits),
      shape_(shape),
      capture_sums_(traits.importance || traits.colsum),
      row_first_(first_row(traits, shape)),
      source_(source) {
    if (traits.query_stats) {
        stats_.emplace(config_, traits.n_sink, rope_magnitude(config_.rope));
    }
    row_positions_.resize(static_cast<size_t>(shape.n_tokens - row_first_));
    std::iota(row_positions_.begin(), row_positions_.end(), row_first_);
    queries_.resize(row_positions_.size() * static_cast<size_t>(config_.n_head) *
                    static_cast<size_t>(config_.head_dim));
    n_own_ = traits.probes && source.probes.empty() ? n_own_probes(shape) : 0;
    const int32_t n_saved = std::min(shape.n_tokens, std::max(traits.n_queries, n_own_));
    unrotated_first_ = shape.n_tokens - n_saved;
    unrotated_.resize(static_cast<size_t>(n_saved) * static_cast<size_t>(config_.n_head) *
                      static_cast<size_t>(config_.head_dim));
    for (int32_t h = 0; h < config_.n_head; ++h) {
        for (int32_t i = 0; i < n_own_; ++i) {
            own_offsets_.push_back(i);
        }
    }
    own_weights_.assign(own_offsets_.size(), 1.0F / static_cast<float>(std::max(n_own_, 1)));
    own_shares_.assign(own_offsets_.size(), 1.0F);
}

LayerProbes LayerCapture::own_probes() const {
    const auto head_dim = static_cast<size_t>(config_.head_dim), width = head_dim * static_cast<size_t>(config_.n_head);
    return {.type = GGML_TYPE_F32,
            .queries = reinterpret_cast<const std::byte *>(unrotated_.data() + unrotated_.size() -
                                                           static_cast<size_t>(n_own_) * width),
            .n = n_own_,
            .probe_bytes = width * sizeof(float),
            .head_bytes = head_dim * sizeof(float),
            .offsets = own_offsets_,
            .weights = own_weights_,
            .shares = own_shares_};
}

void LayerCapture::begin_layer() {
    if (capture_sums_) {
        sums_.reset(config_.n_head, shape_.n_tokens);
    }
    if (stats_) {
        stats_->reset();
    }
}

void LayerCapture::add_queries(const GraphBuilder & b, int32_t first, const Qkv & qkv) {
    if (stats_) {
        stats_->add(b, first, qkv.q_unrotated);
    }
    save_queries(b, config_, qkv.q_unrotated, first, unrotated_first_, unrotated_);
    save_queries(b, config_, qkv.q, first, row_first_, queries_);
}

LayerScore LayerCapture::score(const Method & method, int32_t il) {
    EngineObservation observation(runner_, config_, kv_, row_positions_, queries_);
    const auto n_tokens = static_cast<size_t>(shape_.n_tokens);
    std::vector<float> importance, keys, values, mean, covariance;
    if (traits_.importance) {
        importance.resize(n_tokens);
        for (size_t k = 0; k < n_tokens; ++k) {
            double sum = 0;
            for (size_t h = 0; h < static_cast<size_t>(config_.n_head); ++h) {
                sum += static_cast<double>(sums_.sums[h * n_tokens + k]);
            }
            importance[k] = static_cast<float>(sum / config_.n_head);
        }
        observation.importance = importance;
    }
    if (traits_.colsum) {
        observation.colsum = sums_.sums;
    }
    const auto to_float = [&](const ggml_fp16_t * from, std::vector<float> & to) {
        const size_t head = n_tokens * static_cast<size_t>(config_.head_dim);
        const auto n_head_kv = static_cast<size_t>(config_.n_head_kv);
        to.resize(n_head_kv * head);
        for (size_t g = 0; g < n_head_kv; ++g) {
            ggml_fp16_to_fp32_row(from + g * kv_.head_stride(), to.data() + g * head, static_cast<int64_t>(head));
        }
    };
    if (traits_.keys) {
        to_float(kv_.keys(), keys);
        observation.keys = keys;
    }
    if (traits_.values) {
        to_float(kv_.values(), values);
        observation.values = values;
    }
    if (stats_) {
        stats_->results(mean, covariance);
        observation.query_mean = mean;
        observation.query_cov = covariance;
    }
    ProbeAttention probed;
    std::vector<float> norms;
    if (traits_.probes) {
        const int32_t next = shape_.next_position < 0 ? shape_.n_tokens : shape_.next_position;
        const LayerProbes probes = source_.probes.empty() ? own_probes() : source_.probes[static_cast<size_t>(il)];
        probed = probe_attention(runner_, config_, kv_, decoder_.rope_factors(il), probes, next);
        norms = source_.factors->norms(runner_, config_, kv_, il);
        observation.probe_mean = probed.mean;
        observation.probe_square = probed.square;
        observation.output_norm = norms;
    }
    if (traits_.n_queries > 0) {
        observation.last_queries = unrotated_;
    }
    return method.score(shape_, il, observation);
}

uint64_t LayerCapture::bytes() const {
    return (queries_.capacity() + unrotated_.capacity() + sums_.sums.capacity()) * sizeof(float) +
           (stats_ ? stats_->bytes() : 0);
}

}  // namespace kvsieve
