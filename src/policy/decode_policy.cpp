// SPDX-License-Identifier: MIT
#include "kvsieve/decode_policy.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <numeric>
#include <utility>

#include "kvsieve/error.h"
#include "policy/number.h"

namespace kvsieve {
namespace {

constexpr int32_t kSinks = 4;  // of StreamingLLM

[[noreturn]] void refuse(const std::string & sentence) {
    throw Error(ErrorCode::invalid_argument, sentence);
}

class FixedCap : public DecodePolicy {
  public:
    FixedCap(int32_t cap, int32_t n_layer, int32_t n_set) : cap_(cap), n_layer_(n_layer), n_set_(n_set) {}

    int32_t cap() const override { return cap_; }

    void evict(int32_t il, int32_t set, std::span<const int32_t> positions, std::span<const float> attention,
               std::vector<int32_t> & slots) override {
        check(il, set, positions, attention, wants_attention());
        slots.clear();
        observe(il, set, positions, attention);
        const auto n_over = static_cast<int64_t>(positions.size()) - cap_;
        if (n_over > 0) {
            choose(il, set, positions, attention, static_cast<size_t>(n_over), slots);
            std::sort(slots.begin(), slots.end(), std::greater<>());
            forget(il, set, slots);
        }
    }

    void reset() override {}

  protected:
    virtual void observe(int32_t /*il*/, int32_t /*set*/, std::span<const int32_t> /*positions*/,
                         std::span<const float> /*attention*/) {}
    /// Adds `n` different slots.
    virtual void choose(int32_t il, int32_t set, std::span<const int32_t> positions, std::span<const float> attention,
                        size_t n, std::vector<int32_t> & slots) const = 0;
    /// `slots` descending.
    virtual void forget(int32_t /*il*/, int32_t /*set*/, const std::vector<int32_t> & /*slots*/) {}

    [[nodiscard]] size_t index(int32_t il, int32_t set) const {
        return static_cast<size_t>(il) * static_cast<size_t>(n_set_) + static_cast<size_t>(set);
    }
    [[nodiscard]] size_t n_index() const { return static_cast<size_t>(n_layer_) * static_cast<size_t>(n_set_); }

    /// The `n` slots out of `from` that come first by (value, position).
    template <typename Value>
    static void lowest(std::vector<int32_t> from, std::span<const int32_t> positions, size_t n, const Value & value,
                       std::vector<int32_t> & slots) {
        const auto before = [&](int32_t a, int32_t b) {
            const auto i = static_cast<size_t>(a), j = static_cast<size_t>(b);
            return value(i) < value(j) || (value(i) == value(j) && positions[i] < positions[j]);
        };
        if (n == 1) {  // the usual case: one row came, one goes
            slots.push_back(*std::min_element(from.begin(), from.end(), before));
            return;
        }
        std::nth_element(from.begin(), from.begin() + static_cast<std::ptrdiff_t>(n) - 1, from.end(), before);
        slots.insert(slots.end(), from.begin(), from.begin() + static_cast<std::ptrdiff_t>(n));
    }

    static std::vector<int32_t> all_slots(size_t n) {
        std::vector<int32_t> out(n);
        std::iota(out.begin(), out.end(), 0);
        return out;
    }

  private:
    void check(int32_t il, int32_t set, std::span<const int32_t> positions, std::span<const float> values,
               bool wanted) const {
        if (il < 0 || il >= n_layer_ || set < 0 || set >= n_set_) {
            refuse("there is no set " + std::to_string(set) + " in layer " + std::to_string(il) + " of " +
                   std::to_string(n_layer_) + " layers with " + std::to_string(n_set_) + " sets of rows each");
        }
        if (wanted && values.size() != positions.size()) {
            refuse("decode policy " + std::string(name()) + " got " + std::to_string(values.size()) +
                   " attention values for " + std::to_string(positions.size()) + " rows; expected one per row");
        }
        if (wanted && !std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); })) {
            throw Error(ErrorCode::runtime, "decode policy " + std::string(name()) +
                                                " got attention that is not finite in layer " + std::to_string(il));
        }
    }

    int32_t cap_, n_layer_, n_set_;
};

class Tova final : public FixedCap {
  public:
    using FixedCap::FixedCap;
    std::string_view name() const override { return "tova"; }
    bool wants_attention() const override { return true; }
    std::unique_ptr<DecodePolicy> clone() const override { return std::make_unique<Tova>(*this); }

  private:
    void choose(int32_t /*il*/, int32_t /*set*/, std::span<const int32_t> positions, std::span<const float> attention,
                size_t n, std::vector<int32_t> & slots) const override {
        lowest(
            all_slots(positions.size()), positions, n, [&](size_t i) { return attention[i]; }, slots);
    }
};

class Window final : public FixedCap {
  public:
    using FixedCap::FixedCap;
    std::string_view name() const override { return "window"; }
    bool wants_attention() const override { return false; }
    std::unique_ptr<DecodePolicy> clone() const override { return std::make_unique<Window>(*this); }

  private:
    void choose(int32_t /*il*/, int32_t /*set*/, std::span<const int32_t> positions,
                std::span<const float> /*attention*/, size_t n, std::vector<int32_t> & slots) const override {
        // At most cap - 1 sinks stay, so that the newest row always does.
        const int32_t n_sink = std::min(kSinks, cap() - 1);
        std::vector<int32_t> others;
        for (size_t i = 0; i < positions.size(); ++i) {
            if (positions[i] >= n_sink) {
                others.push_back(static_cast<int32_t>(i));
            }
        }
        lowest(
            std::move(others), positions, n, [](size_t) { return 0; }, slots);
    }
};

class HeavyHitters final : public FixedCap {
  public:
    HeavyHitters(int32_t cap, int32_t n_layer, int32_t n_set) : FixedCap(cap, n_layer, n_set), sets_(n_index()) {}
    std::string_view name() const override { return "h2o"; }
    bool wants_attention() const override { return true; }
    std::unique_ptr<DecodePolicy> clone() const override { return std::make_unique<HeavyHitters>(*this); }
    void reset() override { sets_.assign(n_index(), {}); }

  private:
    struct Set {
        std::vector<int32_t> positions = {};  ///< [n_rows], in the order of the last call
        std::vector<double> sums = {};        ///< [n_rows]
    };

    void observe(int32_t il, int32_t set, std::span<const int32_t> positions,
                 std::span<const float> attention) override {
        Set & state = sets_[index(il, set)];
        follow(state, positions);
        for (size_t i = 0; i < attention.size(); ++i) {
            state.sums[i] += static_cast<double>(attention[i]);
        }
    }

    void choose(int32_t il, int32_t set, std::span<const int32_t> positions, std::span<const float> /*attention*/,
                size_t n, std::vector<int32_t> & slots) const override {
        // Half of the cap belongs to the newest rows.
        const auto n_recent = static_cast<size_t>(cap() / 2);
        std::vector<int32_t> from = all_slots(positions.size());
        if (n_recent > 0) {
            const auto old_end = from.end() - static_cast<std::ptrdiff_t>(n_recent);
            std::nth_element(from.begin(), old_end, from.end(), [&](int32_t a, int32_t b) {
                return positions[static_cast<size_t>(a)] < positions[static_cast<size_t>(b)];
            });
            from.erase(old_end, from.end());
        }
        const std::vector<double> & sums = sets_[index(il, set)].sums;
        lowest(
            std::move(from), positions, n, [&](size_t i) { return sums[i]; }, slots);
    }

    /// As the cache does: the last row takes the place of each that leaves. Any other order is found out by follow().
    void forget(int32_t il, int32_t set, const std::vector<int32_t> & slots) override {
        Set & state = sets_[index(il, set)];
        for (const int32_t slot : slots) {
            state.positions[static_cast<size_t>(slot)] = state.positions.back();
            state.sums[static_cast<size_t>(slot)] = state.sums.back();
            state.positions.pop_back();
            state.sums.pop_back();
        }
    }

    /// Puts the sums into the order of `positions`; rows not known before begin with 0.
    static void follow(Set & state, std::span<const int32_t> positions) {
        const size_t n_known = std::min(state.positions.size(), positions.size());
        if (state.positions.size() <= positions.size() &&
            std::equal(state.positions.begin(), state.positions.end(), positions.begin())) {
            state.positions.insert(state.positions.end(), positions.begin() + static_cast<std::ptrdiff_t>(n_known),
                                   positions.end());
            state.sums.resize(positions.size(), 0.0);
            return;
        }
        std::vector<std::pair<int32_t, double>> known;
        for (size_t i = 0; i < state.positions.size(); ++i) {
            known.emplace_back(state.positions[i], state.sums[i]);
        }
        std::sort(known.begin(), known.end());
        state.positions.assign(positions.begin(), positions.end());
        state.sums.assign(positions.size(), 0.0);
        for (size_t i = 0; i < positions.size(); ++i) {
            const auto at = std::lower_bound(known.begin(), known.end(), std::pair{positions[i], -HUGE_VAL});
            if (at != known.end() && at->first == positions[i]) {
                state.sums[i] = at->second;
            }
        }
    }

    std::vector<Set> sets_;  // [n_layer, n_set]
};

constexpr std::array<std::string_view, 5> kNames = {"default", "none", "tova", "h2o", "window"};

}  // namespace

std::span<const std::string_view> decode_policies() {
    return kNames;
}

std::unique_ptr<DecodePolicy> make_decode_policy(std::string_view name, int32_t cap, int32_t n_layer, int32_t n_set) {
    if (std::find(kNames.begin(), kNames.end(), name) == kNames.end()) {
        const std::vector<std::string> names(kNames.begin(), kNames.end());
        refuse("there is no decode policy '" + std::string(name) + "'; expected one of " + word_list(names));
    }
    const bool capped = name != "default" && name != "none";
    if (!capped && cap != 0) {
        refuse("decode policy " + std::string(name) + " takes no cap; got " + std::to_string(cap) + " rows");
    }
    if (capped && (cap < 1 || n_layer < 1 || n_set < 1)) {
        refuse("decode policy " + std::string(name) + " got a cap of " + std::to_string(cap) + " rows for " +
               std::to_string(n_layer) + " layers with " + std::to_string(n_set) +
               " sets of rows; expected at least 1 " + "of each");
    }
    if (name == "tova") {
        return std::make_unique<Tova>(cap, n_layer, n_set);
    }
    if (name == "h2o") {
        return std::make_unique<HeavyHitters>(cap, n_layer, n_set);
    }
    if (name == "window") {
        return std::make_unique<Window>(cap, n_layer, n_set);
    }
    return nullptr;
}

}  // namespace kvsieve
