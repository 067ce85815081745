// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace kvsieve {

/// Calls body(i) for i in [0, n), each once, on up to `n_threads` threads. Rethrows the first exception.
template <typename Body>
void parallel_for(size_t n, int32_t n_threads, const Body & body) {
    const size_t n_worker = std::min(n, static_cast<size_t>(std::max(n_threads, 1)));
    if (n_worker <= 1) {
        for (size_t i = 0; i < n; ++i) {
            body(i);
        }
        return;
    }
    std::atomic<size_t> next{0};
    std::exception_ptr failure;
    std::mutex failing;
    const auto work = [&] {
        for (size_t i = next++; i < n; i = next++) {
            try {
                body(i);
            } catch (...) {
                const std::lock_guard lock(failing);
                failure = failure ? failure : std::current_exception();
            }
        }
    };
    std::vector<std::jthread> threads;
    for (size_t t = 1; t < n_worker; ++t) {
        threads.emplace_back(work);
    }
    work();
    threads.clear();  // joins
    if (failure) {
        std::rethrow_exception(failure);
    }
}

}  // namespace kvsieve
