// SPDX-License-Identifier: MIT
// Orders of many scores without sorting them all. Numbers are finite; both zeros are equal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace kvsieve {

/// Consecutive places [begin, end).
struct Run {
    size_t begin = 0, end = 0;
};
/// Where a mask is 1, ascending.
[[nodiscard]] std::vector<Run> runs_of(std::span<const uint8_t> mask);
[[nodiscard]] size_t n_places(std::span<const Run> runs);

/// Some of the numbers of one array.
struct Values {
    std::span<const double> all = {};
    std::span<const Run> runs = {};  ///< those that take part
    size_t n = 0;                    ///< n_places(runs)
};

/// Where a selection cuts: of n values the lowest `n_drop` in the order (value, place) are those below `value` and the
/// first `n_tied` of those equal to it.
struct Cut {
    double value = 0;
    int64_t n_tied = 0;
};

/// Working memory, which one search after the other may use.
struct CutScratch {
    std::vector<double> gathered;
    std::vector<uint64_t> sample, keys, few;
    std::vector<int32_t> places;
};

/// The cut below which `n_drop` of the values lie, 0 < n_drop <= values.n. The cost is one look at every value.
[[nodiscard]] Cut find_cut(const Values & values, int64_t n_drop, CutScratch & scratch);

/// Where a selection cuts an array, and how many of its values it drops.
struct PoolCut {
    Cut cut;
    int64_t n_drop = 0;
};

/// The same in a pool of several arrays of equal n and runs, each without its `n_best` largest values (n_best <= n):
/// the `n_taken` largest values of the pool stay. Among equal ones those that come first in the order (place, array)
/// are dropped first.
[[nodiscard]] std::vector<PoolCut> cut_pool(std::span<const Values> arrays, int64_t n_best, int64_t n_taken,
                                            CutScratch & scratch);

/// Numbers in descending order, of which only as many are sorted as are asked for.
class Descending {
  public:
    explicit Descending(std::span<const double> values);

    [[nodiscard]] size_t size() const { return keys_.size(); }
    /// How many of the largest are in order.
    [[nodiscard]] size_t n_sorted() const { return n_sorted_; }
    /// The i-th largest, i < n_sorted().
    [[nodiscard]] double at(size_t i) const;
    /// Sorts some more; does nothing once all are sorted.
    void sort_more();

  private:
    std::vector<uint64_t> keys_;   // descending keys, in order from group to group
    std::vector<uint64_t> other_;  // room for sorting a group
    std::vector<uint32_t> ends_;   // of the groups, whose keys share their leading bits
    size_t group_ = 0, n_sorted_ = 0;
};

/// Indices of the values in ascending order, equal values in the order of their indices.
[[nodiscard]] std::vector<int32_t> stable_order(std::span<const double> values);

}  // namespace kvsieve
