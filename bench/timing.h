// SPDX-License-Identifier: MIT
// What the programs that time a kernel share: the clock and the machine's read bandwidth, measured in the same run.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "eval/metrics.h"

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

/// The largest difference of two results. Throws where it passes `bound`; `what` = the kernel's result.
inline double checked_difference(const char * what, const std::vector<float> & kernel, const std::vector<float> & ggml,
                                 double bound) {
    double difference = 0;
    for (size_t i = 0; i < kernel.size(); ++i) {
        difference = std::max(difference, std::abs(static_cast<double>(kernel[i]) - static_cast<double>(ggml[i])));
    }
    if (!(difference <= bound)) {
        throw std::runtime_error(std::string(what) + " differs from ggml's by " + std::to_string(difference) +
                                 ", expected at most " + std::to_string(bound));
    }
    return difference;
}

/// One of two ways of the same work: what writes the milliseconds that it took, and the bytes that it reads.
struct Contender {
    std::function<void(double & ms)> run;
    size_t bytes;
};

/// Plain reading, the kernel and ggml in turns; writes their times and rates into `line`.
inline void time_in_turns(nlohmann::ordered_json & line, int32_t n_repeat, PlainReading & reading,
                          const Contender & kernel, const Contender & ggml) {
    std::vector<double> read_ms, kernel_ms, ggml_ms;
    for (int32_t i = 0; i < n_repeat; ++i) {
        read_ms.push_back(reading.ms());
        kernel.run(kernel_ms.emplace_back());
        ggml.run(ggml_ms.emplace_back());
    }
    line["kernel_ms"] = best(kernel_ms);
    line["kernel_ms_median"] = quantile(kernel_ms, 0.5);
    line["ggml_ms"] = best(ggml_ms);
    line["ggml_ms_median"] = quantile(ggml_ms, 0.5);
    line["kernel_gbps"] = gbps(kernel.bytes, best(kernel_ms));
    line["ggml_gbps"] = gbps(ggml.bytes, best(ggml_ms));
    line["read_gbps"] = gbps(reading.bytes(), best(read_ms));
    line["share_of_read"] = gbps(kernel.bytes, best(kernel_ms)) / gbps(reading.bytes(), best(read_ms));
    line["ggml_over_kernel"] = best(ggml_ms) / best(kernel_ms);
}

}  // namespace kvsieve
