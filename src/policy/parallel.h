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

/// Calls body(i, state) for i in [0, n), each once, on up to `n_threads` threads; every thread has a State of its own,
/// working memory that it uses again. Rethrows the first exception.
template <typename State, typename Body>
void parallel_for_with(size_t n, int32_t n_threads, const Body & body) {
    const size_t n_worker = std::min(n, static_cast<size_t>(std::max(n_threads, 1)));
    if (n_worker <= 1) {
        State state;
        for (size_t i = 0; i < n; ++i) {
            body(i, state);
        }
        return;
    }
    std::atomic<size_t> next{0};
    std::exception_ptr failure;
    std::mutex failing;
    const auto work = [&] {
        State state;
        for (size_t i = next++; i < n; i = next++) {
            try {
                body(i, state);
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

/// The same without working memory: body(i).
template <typename Body>
void parallel_for(size_t n, int32_t n_threads, const Body & body) {
    struct Nothing {};
    parallel_for_with<Nothing>(n, n_threads, [&body](size_t i, Nothing &) { body(i); });
}

}  // namespace kvsieve
