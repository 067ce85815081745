// SPDX-License-Identifier: MIT
// Rows that leave the cache while tokens are generated: by the plan's own rule, or by a decode policy.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cache/ragged_kv_cache.h"
#include "graph/ragged_attention.h"
#include "kvsieve/decode_policy.h"
#include "kvsieve/policy.h"

namespace kvsieve {

/// One per session. Not thread-safe.
class Eviction {
  public:
    /// Throws Error{invalid_argument} for a policy that does not exist, or a cap that does not belong to it.
    Eviction(std::string policy, int32_t cap, int32_t n_head, int32_t n_head_kv);

    /// After the first prompt: what follows works on this plan's sets of rows.
    void begin(const Plan & plan);
    void reset();
    /// Must the next forward() deliver the newest token's attention?
    [[nodiscard]] bool wants_attention() const { return policy_ != nullptr && policy_->wants_attention(); }
    /// A policy keeps the number of rows below a cap of its own.
    [[nodiscard]] bool capped() const { return cap_ > 0; }

    /// Bytes of the rows that the cache will hold, summed over layers and KV heads, after n_new tokens behind n_before
    /// processed ones.
    [[nodiscard]] uint64_t bytes_after(const RaggedKvCache & cache, int32_t n_new, int32_t n_before) const;
    /// Most rows of a KV head at any moment while n_new tokens come one at a time.
    [[nodiscard]] int32_t most_rows(const RaggedKvCache & cache, int32_t il, int32_t g, int32_t n_new,
                                    int32_t n_before) const;
    /// After n_new rows were appended to n_before processed tokens. `newest` is empty unless wants_attention().
    void run(RaggedKvCache & cache, int32_t n_new, int32_t n_before, const NewestAttention & newest);

  private:
    [[nodiscard]] int32_t n_by_rule(int32_t il, int32_t rows_before, int32_t n_new, int32_t n_before) const;
    void run_policy(RaggedKvCache & cache, const NewestAttention & newest);

    std::string name_;
    int32_t cap_, n_head_, n_head_kv_;
    std::vector<DecodeRule> rules_;  // [L], or empty
    int32_t n_set_ = 1;              // sets of rows in a layer: 1, or one per KV head
    std::unique_ptr<DecodePolicy> policy_;
};

}  // namespace kvsieve
