// SPDX-License-Identifier: MIT
// Mean and covariance of a layer's queries before RoPE, and how the model rotates them (expected attention).
#pragma once

#include <cstdint>
#include <vector>

#include "graph/arch.h"
#include "kvsieve/policy.h"

namespace kvsieve {

/// Sums over one layer's queries, added up chunk by chunk in token order: the result does not depend on the number of
/// threads, and the queries themselves are never all in memory.
class QueryStats {
  public:
    /// `n_sink`: tokens in front that are not counted. `magnitude` is multiplied into every query.
    QueryStats(const DecoderConfig & config, int32_t n_sink, double magnitude);
    void reset();
    /// Adds a node that counts the unrotated queries [head_dim, n_head, n] of the tokens first .. first+n-1.
    void add(const GraphBuilder & b, int32_t first, ggml_tensor * query);
    /// mean [H, d] and covariance [H, d, d] (divisor: the number of queries); zero without any query.
    void results(std::vector<float> & mean, std::vector<float> & covariance) const;
    [[nodiscard]] uint64_t bytes() const;

  private:
    static void add_queries(ggml_tensor * dst, const ggml_tensor * query, int ith, int nth, void * userdata);

    int32_t n_head_, head_dim_, n_sink_;
    double magnitude_;
    int32_t first_ = 0;             // token of the chunk in work
    int64_t n_ = 0;                 // queries counted
    std::vector<double> sums_;      // [H, d]
    std::vector<double> products_;  // [H, d, d], row i from column i on
};

/// Angles per position of the decoder's rotated pairs, with its scaling and factors; one set for all layers.
/// Throws Error{bad_input} where layers have factors of their own that differ.
[[nodiscard]] RopeShape rope_shape(const Decoder & decoder);
/// What the model multiplies into cos and sin (1 without YaRN or an attention factor).
[[nodiscard]] double rope_magnitude(const RopeConfig & rope);

}  // namespace kvsieve
