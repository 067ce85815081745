// SPDX-License-Identifier: MIT
#include "engine/eviction.h"

#include <algorithm>
#include <utility>

namespace kvsieve {

Eviction::Eviction(std::string policy, int32_t cap, int32_t n_head, int32_t n_head_kv)
    : name_(std::move(policy)), cap_(cap), n_head_(n_head), n_head_kv_(n_head_kv) {
    static_cast<void>(make_decode_policy(name_, cap_, 1, 1));
}

void Eviction::begin(const Plan & plan) {
    const bool per_head = plan.per_head || std::any_of(plan.layers.begin(), plan.layers.end(),
                                                       [](const LayerPlan & layer) { return layer.kept.size() > 1; });
    n_set_ = per_head ? n_head_kv_ : 1;
    rules_ = name_ == "default" ? plan.decode : std::vector<DecodeRule>();
    policy_ = make_decode_policy(name_, cap_, static_cast<int32_t>(plan.layers.size()), n_set_);
}

void Eviction::reset() {
    rules_.clear();
    policy_.reset();
}

/// Evictions that the rule orders while n_new tokens come one at a time.
int32_t Eviction::n_by_rule(int32_t il, int32_t rows_before, int32_t n_new, int32_t n_before) const {
    if (rules_.empty()) {
        return 0;
    }
    const DecodeRule & rule = rules_[static_cast<size_t>(il)];
    int32_t rows = rows_before;
    for (int32_t i = 1; i <= n_new; ++i) {
        ++rows;
        rows -= rule.n_over(rows, n_before + i) > 0 ? 1 : 0;
    }
    return rows_before + n_new - rows;
}

uint64_t Eviction::bytes_after(const RaggedKvCache & cache, int32_t n_new, int32_t n_before) const {
    uint64_t bytes = 0;
    for (int32_t il = 0; il < cache.params().n_layer; ++il) {
        for (int32_t g = 0; g < n_head_kv_; ++g) {
            const int32_t held = cache.n_rows(il, g);
            const int32_t then = held + n_new - n_by_rule(il, held, n_new, n_before);
            bytes += static_cast<uint64_t>(capped() ? std::min(then, cap_) : then) * 2 * cache.k_rows(il, g).row_bytes;
        }
    }
    return bytes;
}

int32_t Eviction::most_rows(const RaggedKvCache & cache, int32_t il, int32_t g, int32_t n_new, int32_t n_before) const {
    const int32_t held = cache.n_rows(il, g);
    if (n_new <= 0) {
        return held;
    }
    if (capped()) {  // the policy works after a row was appended
        return std::max(held + 1, std::min(held + n_new, cap_ + 1));
    }
    if (rules_.empty()) {
        return held + n_new;
    }
    const DecodeRule & rule = rules_[static_cast<size_t>(il)];
    int32_t rows = held, most = held;
    for (int32_t i = 1; i <= n_new; ++i) {
        most = std::max(most, ++rows);
        rows -= rule.n_over(rows, n_before + i) > 0 ? 1 : 0;
    }
    return most;
}

void Eviction::run(RaggedKvCache & cache, int32_t n_new, int32_t n_before, const NewestAttention & newest) {
    if (policy_ != nullptr) {
        run_policy(cache, newest);
        return;
    }
    for (size_t il = 0; il < rules_.size(); ++il) {
        const auto layer = static_cast<int32_t>(il);
        const int32_t n = n_by_rule(layer, cache.n_rows(layer, 0) - n_new, n_new, n_before);
        if (n > 0) {
            cache.evict(layer, rules_[il].drop_slot, n);
        }
    }
}

void Eviction::run_policy(RaggedKvCache & cache, const NewestAttention & newest) {
    const int32_t heads_of_set = n_head_ / n_set_;
    std::vector<double> sum;
    std::vector<float> attention;
    std::vector<int32_t> slots;
    for (int32_t il = 0; il < cache.params().n_layer; ++il) {
        size_t at = 0;  // in the layer's attention rows
        for (int32_t set = 0; set < n_set_; ++set) {
            const auto positions = cache.positions(il, set);
            if (wants_attention()) {  // mean over the query heads that read this set
                sum.assign(positions.size(), 0.0);
                const std::vector<float> & rows = newest[static_cast<size_t>(il)];
                for (int32_t h = 0; h < heads_of_set; ++h, at += positions.size()) {
                    for (size_t i = 0; i < positions.size(); ++i) {
                        sum[i] += static_cast<double>(rows[at + i]);
                    }
                }
                attention.resize(positions.size());
                std::transform(sum.begin(), sum.end(), attention.begin(),
                               [&](double x) { return static_cast<float>(x / heads_of_set); });
            }
            policy_->evict(il, set, positions, attention, slots);
            for (int32_t g = n_set_ == 1 ? 0 : set; g <= (n_set_ == 1 ? n_head_kv_ - 1 : set); ++g) {
                cache.remove(il, g, slots);
            }
        }
    }
}

}  // namespace kvsieve
