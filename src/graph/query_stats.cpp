// SPDX-License-Identifier: MIT
#include "graph/query_stats.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "kvsieve/error.h"

namespace kvsieve {

QueryStats::QueryStats(const DecoderConfig & config, int32_t n_sink, double magnitude)
    : n_head_(config.n_head), head_dim_(config.head_dim), n_sink_(n_sink), magnitude_(magnitude) {
    const auto d = static_cast<size_t>(head_dim_);
    sums_.resize(static_cast<size_t>(n_head_) * d);
    products_.resize(sums_.size() * d);
}

void QueryStats::reset() {
    n_ = 0;
    std::fill(sums_.begin(), sums_.end(), 0.0);
    std::fill(products_.begin(), products_.end(), 0.0);
}

/// One head is one thread's work.
void QueryStats::add_queries(ggml_tensor * dst, const ggml_tensor * query, int ith, int nth, void * userdata) {
    (void)dst;
    auto & stats = *static_cast<QueryStats *>(userdata);
    const auto d = static_cast<size_t>(stats.head_dim_);
    std::vector<double> x(d);
    for (int64_t h = ith; h < query->ne[1]; h += nth) {
        double * sums = stats.sums_.data() + static_cast<size_t>(h) * d;
        double * products = stats.products_.data() + static_cast<size_t>(h) * d * d;
        for (int64_t t = std::max(0, stats.n_sink_ - stats.first_); t < query->ne[2]; ++t) {
            const auto * row = reinterpret_cast<const float *>(static_cast<const char *>(query->data) +
                                                               static_cast<size_t>(h) * query->nb[1] +
                                                               static_cast<size_t>(t) * query->nb[2]);
            std::transform(row, row + d, x.begin(), [&](float value) { return stats.magnitude_ * value; });
            for (size_t i = 0; i < d; ++i) {
                sums[i] += x[i];
                double * out = products + i * d;
                for (size_t j = i; j < d; ++j) {
                    out[j] += x[i] * x[j];
                }
            }
        }
    }
}

void QueryStats::add(const GraphBuilder & b, int32_t first, ggml_tensor * query) {
    first_ = first;
    const int64_t n = query->ne[2] - std::max(0, n_sink_ - first);
    if (n > 0) {
        n_ += n;
        b.expand(ggml_map_custom1(b.ctx, query, add_queries, GGML_N_TASKS_MAX, this));
    }
}

void QueryStats::results(std::vector<float> & mean, std::vector<float> & covariance) const {
    const auto d = static_cast<size_t>(head_dim_);
    const double n = std::max(1.0, static_cast<double>(n_));
    mean.resize(sums_.size());
    covariance.resize(products_.size());
    std::transform(sums_.begin(), sums_.end(), mean.begin(), [&](double x) { return static_cast<float>(x / n); });
    for (size_t h = 0; h < static_cast<size_t>(n_head_); ++h) {
        const double * sums = sums_.data() + h * d;
        for (size_t i = 0; i < d; ++i) {
            for (size_t j = i; j < d; ++j) {
                const double value = products_[(h * d + i) * d + j] / n - (sums[i] / n) * (sums[j] / n);
                covariance[(h * d + i) * d + j] = covariance[(h * d + j) * d + i] = static_cast<float>(value);
            }
        }
    }
}

uint64_t QueryStats::bytes() const {
    return (sums_.capacity() + products_.capacity()) * sizeof(double);
}

double rope_magnitude(const RopeConfig & rope) {
    const auto magnitude = static_cast<double>(rope.attn_factor);
    if (rope.ext_factor == 0.0F) {
        return magnitude;
    }
    return magnitude * (1.0 + 0.1 * std::log(1.0 / static_cast<double>(rope.freq_scale)));  // YaRN's, as in ggml
}

RopeShape rope_shape(const Decoder & decoder) {
    const DecoderConfig & config = decoder.config();
    const RopeConfig & rope = config.rope;
    const auto m = static_cast<size_t>(rope.n_dims / 2);
    const auto * factors = decoder.rope_factors(0);
    for (int32_t il = 1; il < config.n_layer; ++il) {
        const float * other = decoder.rope_factors(il);
        if (other != factors &&
            (other == nullptr || factors == nullptr || std::memcmp(other, factors, m * sizeof(float)) != 0)) {
            throw Error(ErrorCode::bad_input, "the layers 0 and " + std::to_string(il) +
                                                  " have different RoPE factors; a method that looks ahead expects "
                                                  "one set for all layers");
        }
    }
    float corr[2] = {0, 0};
    ggml_rope_yarn_corr_dims(rope.n_dims, rope.n_ctx_orig, rope.freq_base, rope.beta_fast, rope.beta_slow, corr);
    RopeShape shape;
    shape.interleaved = rope.mode == GGML_ROPE_TYPE_NORMAL;
    shape.freqs.resize(m);
    for (size_t i = 0; i < m; ++i) {
        const double exponent = -2.0 * static_cast<double>(i) / rope.n_dims;
        const double plain = std::pow(static_cast<double>(rope.freq_base), exponent) /
                             (factors != nullptr ? static_cast<double>(factors[i]) : 1.0);
        // YaRN: low frequencies are interpolated, high ones stay, with a ramp between (ggml's rope_yarn)
        const double low = static_cast<double>(corr[0]);
        const double ramp = (static_cast<double>(i) - low) / std::max(0.001, static_cast<double>(corr[1]) - low);
        const double stay = static_cast<double>(rope.ext_factor) * (1.0 - std::clamp(ramp, 0.0, 1.0));
        shape.freqs[i] = static_cast<float>(static_cast<double>(rope.freq_scale) * plain * (1.0 - stay) + plain * stay);
    }
    return shape;
}

}  // namespace kvsieve
