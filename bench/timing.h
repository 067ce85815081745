// SPDX-License-Identifier: MIT
// What the programs that time a kernel share: the clock and the machine's read bandwidth, measured in the same run.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace kvsieve {

inline double ms_of(const std::function<void()> & work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

inline double best(const std::vector<double> & ms) {
    return *std::min_element(ms.begin(), ms.end());
}

inline double gbps(size_t bytes, double ms) {
    return static_cast<double>(bytes) / ms * 1e-6;
}

/// Sums a large block with all threads, each in two places at once: one stream of addresses alone is slower.
class PlainReading {
  public:
    static constexpr size_t kBytes = size_t{512} << 20U;  // more than caches hold
    explicit PlainReading(int32_t n_threads)
        : data_(kBytes / sizeof(uint64_t), 1), sums_(static_cast<size_t>(n_threads)) {}
    [[nodiscard]] size_t bytes() const { return data_.size() * sizeof(uint64_t); }

    double ms() {
        return ms_of([this] {
            std::vector<std::thread> threads;
            for (size_t i = 0; i < sums_.size(); ++i) {
                threads.emplace_back([this, i] { sums_[i] = sum(i); });
            }
            for (std::thread & thread : threads) {
                thread.join();
            }
            uint64_t all = 0;
            for (const uint64_t sum : sums_) {
                all += sum;
            }
            if (all != data_.size()) {
                throw std::runtime_error("the block was not read completely");
            }
        });
    }

  private:
    [[nodiscard]] uint64_t sum(size_t i) const {
        const size_t first = data_.size() * i / sums_.size();
        const size_t last = data_.size() * (i + 1) / sums_.size();
        const size_t half = (last - first) / 16 * 8;
        uint64_t sums[8] = {};
        for (size_t at = first; at < first + half; at += 8) {
            for (size_t lane = 0; lane < 8; ++lane) {
                sums[lane] += data_[at + lane] + data_[at + half + lane];
            }
        }
        for (size_t at = first + 2 * half; at < last; ++at) {
            sums[0] += data_[at];
        }
        uint64_t all = 0;
        for (const uint64_t part : sums) {
            all += part;
        }
        return all;
    }

    std::vector<uint64_t> data_;
    std::vector<uint64_t> sums_;
};

/// A whole number on the command line.
inline int32_t number(const char * text) {
    char * end = nullptr;
    const long value = std::strtol(text, &end, 10);
    if (*end != '\0' || value < 1 || value > 1 << 20) {
        throw std::runtime_error(std::string("expected whole numbers from 1 to 1048576, got '") + text + "'");
    }
    return static_cast<int32_t>(value);
}

}  // namespace kvsieve
