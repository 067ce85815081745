// SPDX-License-Identifier: MIT
#include "policy/byte_pool.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "policy/budget.h"
#include "policy/parallel.h"

namespace kvsieve {
namespace {

/// Mean squared error of a row of ggml's blocks of 32, as a share of its square, for normally distributed numbers,
/// which a Hadamard rotation leaves.
constexpr std::array<double, 3> kError = {0.0, 2.9e-5, 7.4e-3};  // by KvType
constexpr std::array<KvType, 3> kTypes = {KvType::f16, KvType::q8_0, KvType::q4_0};

/// Squares of scores fall into buckets of a 32nd of an octave, 64 octaves below the largest; the last has the rest.
constexpr size_t kBuckets = 2048;

uint64_t key_of(double square) {
    return std::bit_cast<uint64_t>(square) >> 47U;
}

double error_of(KvType type) {
    return kError[static_cast<size_t>(type)];
}

/// What a 64th of an f16 row must bring in, for a row of this type: rows above it stay.
double threshold(double price, KvType type) {
    return price * static_cast<double>(row_cost(type)) / (1.0 - kValueErrorWeight * error_of(type));
}

class Histogram {
  public:
    Histogram(const Values & values, uint64_t top) : top_(top), n_(kBuckets, 0), sum_(kBuckets, 0.0) {
        for (const Run & run : values.runs) {
            for (size_t k = run.begin; k < run.end; ++k) {
                const double square = values.all[k] * values.all[k];
                ++n_[bucket(square)];
                sum_[bucket(square)] += square;
            }
        }
        for (size_t i = 1; i < kBuckets; ++i) {
            n_[i] += n_[i - 1];
            sum_[i] += sum_[i - 1];
        }
    }

    /// 0 holds the largest.
    [[nodiscard]] size_t bucket(double square) const {
        const uint64_t key = key_of(square);
        return key >= top_ ? 0 : static_cast<size_t>(std::min<uint64_t>(top_ - key, kBuckets - 1));
    }
    /// Rows in the buckets above that of `square`.
    [[nodiscard]] int64_t n_above(double square) const {
        const size_t i = bucket(square);
        return i == 0 ? 0 : n_[i - 1];
    }
    /// Sum of the n largest squares; inside a bucket by its mean.
    [[nodiscard]] double sum_of(int64_t n) const {
        const auto i = static_cast<size_t>(std::lower_bound(n_.begin(), n_.end(), n) - n_.begin());
        if (n == 0 || i == kBuckets) {
            return n == 0 ? 0.0 : sum_.back();
        }
        const int64_t before = i == 0 ? 0 : n_[i - 1];
        const double sum = i == 0 ? 0.0 : sum_[i - 1];
        return sum + (sum_[i] - sum) * static_cast<double>(n - before) / static_cast<double>(n_[i] - before);
    }
    [[nodiscard]] double sum() const { return sum_.back(); }

  private:
    uint64_t top_;
    std::vector<int64_t> n_;   // up to and with a bucket
    std::vector<double> sum_;  // the same, of squares
};

class Pool {
  public:
    Pool(std::span<const ByteList> lists, int64_t budget, double safe, bool quantises, int32_t n_threads)
        : lists_(lists),
          budget_(budget),
          safe_(safe * static_cast<double>(budget) / static_cast<double>(lists.size())),
          n_types_(quantises ? kTypes.size() : 1),
          out_(lists.size()) {
        std::vector<double> largest(lists.size(), 0.0);
        parallel_for(lists.size(), n_threads, [&](size_t i) {
            const Values & scores = lists[i].scores;
            for (const Run & run : scores.runs) {
                for (size_t k = run.begin; k < run.end; ++k) {
                    largest[i] = std::max(largest[i], scores.all[k] * scores.all[k]);
                }
            }
        });
        most_ = *std::max_element(largest.begin(), largest.end());
        histograms_.resize(lists.size(), Histogram({}, 0));
        parallel_for(lists.size(), n_threads,
                     [&](size_t i) { histograms_[i] = Histogram(lists[i].scores, key_of(most_)); });
    }

    std::vector<ByteShare> share() {
        // the lowest price at which everything fits; types first, then rows with the types as they are
        const double with_types = lowest_price([&](double price) { return choose(price); });
        choose(with_types);
        const double price = lowest_price([&](double at) { return count(at); });
        sharpen(fill(price, budget_ - count(price)));
        return out_;
    }

  private:
    [[nodiscard]] int64_t least_rows(size_t i, KvType type) const {
        return std::min<int64_t>(static_cast<int64_t>(lists_[i].scores.n),
                                 trunc_guarded(safe_ / static_cast<double>(row_cost(type))));
    }
    [[nodiscard]] int64_t rows_at(size_t i, KvType type, double price) const {
        return std::max(histograms_[i].n_above(threshold(price, type)), least_rows(i, type));
    }

    template <typename F>
    double lowest_price(const F & cost_at) const {
        double low = -200, high = 1;  // powers of two beside the largest square
        const auto price_of = [&](double power) { return std::max(most_, 1e-300) * std::exp2(power); };
        for (int i = 0; i < 48; ++i) {
            const double middle = (low + high) / 2;
            (cost_at(price_of(middle)) <= budget_ ? high : low) = middle;
        }
        return price_of(high);
    }

    /// Every list takes the type with which what it loses and what it costs are least; the cost of all.
    int64_t choose(double price) {
        int64_t total = 0;
        for (size_t i = 0; i < lists_.size(); ++i) {
            const Histogram & histogram = histograms_[i];
            double least = 0;
            for (size_t t = 0; t < n_types_; ++t) {
                const KvType type = kTypes[t];
                const int64_t n = rows_at(i, type, price);
                const double kept = histogram.sum_of(n);
                const double loss = histogram.sum() - kept +
                                    error_of(type) * (kValueErrorWeight * kept + lists_[i].key_noise) +
                                    price * static_cast<double>(n * row_cost(type));
                if (t == 0 || loss <= least) {
                    least = loss;
                    out_[i] = {n, type};
                }
            }
            total += out_[i].n_kept * row_cost(out_[i].type);
        }
        return total;
    }

    /// The same with the types as they are.
    int64_t count(double price) {
        int64_t total = 0;
        for (size_t i = 0; i < lists_.size(); ++i) {
            out_[i].n_kept = rows_at(i, out_[i].type, price);
            total += out_[i].n_kept * row_cost(out_[i].type);
        }
        return total;
    }

    /// Spends what is left on the best of the rows around the price; what is left then.
    int64_t fill(double price, int64_t left) {
        struct Candidate {
            double worth;  // of a 64th of an f16 row
            size_t list;
        };
        std::vector<Candidate> candidates;
        std::vector<double> squares;
        for (size_t i = 0; i < lists_.size(); ++i) {
            const KvType type = out_[i].type;
            const double at = threshold(price, type);
            const size_t first = histograms_[i].bucket(at), last = histograms_[i].bucket(0.95 * at);
            squares.clear();
            for (const Run & run : lists_[i].scores.runs) {
                for (size_t k = run.begin; k < run.end; ++k) {
                    const double square = lists_[i].scores.all[k] * lists_[i].scores.all[k];
                    const size_t bucket = histograms_[i].bucket(square);
                    if (bucket >= first && bucket <= last) {
                        squares.push_back(square);
                    }
                }
            }
            const auto n_taken = static_cast<size_t>(std::max<int64_t>(
                0, out_[i].n_kept - histograms_[i].n_above(at)));  // what is safe may reach below the price
            std::sort(squares.begin(), squares.end(), std::greater<>());
            for (size_t k = n_taken; k < squares.size(); ++k) {
                candidates.push_back(
                    {squares[k] * (1.0 - kValueErrorWeight * error_of(type)) / static_cast<double>(row_cost(type)), i});
            }
        }
        std::stable_sort(candidates.begin(), candidates.end(),
                         [](const Candidate & a, const Candidate & b) { return a.worth > b.worth; });
        for (const Candidate & one : candidates) {
            const int64_t cost = row_cost(out_[one.list].type);
            if (cost <= left) {
                left -= cost;
                ++out_[one.list].n_kept;
            }
        }
        return left;
    }

    /// Where all rows stay, what is left buys better types.
    void sharpen(int64_t left) {
        for (;;) {
            size_t best = out_.size();
            double most = 0;
            for (size_t i = 0; i < out_.size(); ++i) {
                const ByteShare & one = out_[i];
                if (one.type == KvType::f16 || one.n_kept == 0 || cost_of_next(one) > left) {
                    continue;
                }
                const double error = kValueErrorWeight * histograms_[i].sum_of(one.n_kept) + lists_[i].key_noise;
                const double gain =
                    (error_of(one.type) - error_of(next(one.type))) * error / static_cast<double>(cost_of_next(one));
                if (best == out_.size() || gain > most) {
                    best = i;
                    most = gain;
                }
            }
            if (best == out_.size()) {
                return;
            }
            left -= cost_of_next(out_[best]);
            out_[best].type = next(out_[best].type);
        }
    }
    static KvType next(KvType type) { return type == KvType::q4_0 ? KvType::q8_0 : KvType::f16; }
    static int64_t cost_of_next(const ByteShare & one) {
        return one.n_kept * (row_cost(next(one.type)) - row_cost(one.type));
    }

    std::span<const ByteList> lists_;
    int64_t budget_;
    double safe_;  // of the budget, for every list
    size_t n_types_;
    double most_ = 0;
    std::vector<Histogram> histograms_;
    std::vector<ByteShare> out_;
};

}  // namespace

std::vector<ByteShare> share_bytes(std::span<const ByteList> lists, int64_t budget, double safe, bool quantises,
                                   int32_t n_threads) {
    return Pool(lists, budget, safe, quantises, n_threads).share();
}

}  // namespace kvsieve
