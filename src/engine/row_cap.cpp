// SPDX-License-Identifier: MIT
#include "engine/row_cap.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "kvsieve/error.h"

namespace kvsieve {
namespace {

[[noreturn]] void refuse(const std::string & sentence) {
    throw Error(ErrorCode::invalid_argument, sentence);
}

int64_t extents(const RaggedKvCache & cache) {
    return int64_t{cache.params().n_layer} * cache.params().n_head_kv;
}

/// Bytes of a key and its value.
int64_t row_bytes(const RaggedKvCache & cache) {
    return 2 * static_cast<int64_t>(cache.row_bytes());
}

}  // namespace

void check_row_caps(const SessionOptions & options, const RaggedKvCache & cache) {
    if (options.kv_tokens < 0 || options.kv_tokens > INT32_MAX) {
        refuse("the cap on KV rows per layer must be 1 to " + std::to_string(INT32_MAX) + " tokens, got " +
               std::to_string(options.kv_tokens));
    }
    if (!std::isfinite(options.kv_share) || options.kv_share < 0.0 || options.kv_share > 1.0) {
        refuse("the share of the full KV cache must be in (0, 1], got " + std::to_string(options.kv_share));
    }
    const auto least = static_cast<uint64_t>(extents(cache) * row_bytes(cache));
    if (options.kv_bytes != 0 && options.kv_bytes < least) {
        refuse("the KV budget of " + std::to_string(options.kv_bytes) +
               " bytes is too small for this model: one row in every KV head takes " + std::to_string(least));
    }
}

std::optional<int64_t> byte_cap_rows(const SessionOptions & options, const RaggedKvCache & cache) {
    if (options.kv_bytes == 0) {
        return std::nullopt;
    }
    return static_cast<int64_t>(std::min<uint64_t>(options.kv_bytes, INT64_MAX)) / row_bytes(cache);
}

std::optional<int64_t> prompt_cap_rows(const SessionOptions & options, const RaggedKvCache & cache, int32_t n_tokens,
                                       int32_t n_reserved) {
    std::optional<int64_t> cap;
    const auto lower = [&](int64_t rows) { cap = std::min(cap.value_or(INT64_MAX), rows); };
    if (options.kv_tokens > 0) {
        lower(options.kv_tokens * extents(cache));
    }
    if (options.kv_share > 0.0) {
        const double full_f16 = static_cast<double>(extents(cache)) * n_tokens * 4.0 * cache.params().head_dim;
        lower(static_cast<int64_t>(options.kv_share * full_f16 / static_cast<double>(row_bytes(cache)) + 1e-9));
    }
    if (const auto bytes = byte_cap_rows(options, cache)) {
        const int64_t left = *bytes - n_reserved * extents(cache);
        if (left < extents(cache)) {
            refuse("the KV budget of " + std::to_string(options.kv_bytes) + " bytes holds " + std::to_string(*bytes) +
                   " rows, but the " + std::to_string(n_reserved) + " tokens to be generated (-n) take " +
                   std::to_string(n_reserved * extents(cache)) + " and leave none for the prompt");
        }
        lower(left);
    }
    return cap;
}

}  // namespace kvsieve
