// SPDX-License-Identifier: MIT
// Hard caps on the rows of a cache, from what the caller asks for.
#pragma once

#include <cstdint>
#include <optional>

#include "cache/ragged_kv_cache.h"
#include "kvsieve/engine.h"

namespace kvsieve {

/// Throws Error{invalid_argument} for caps that are negative, not finite or too small for a single row.
void check_row_caps(const SessionOptions & options, const RaggedKvCache & cache);

/// Most rows, summed over layers and KV heads, that the byte cap allows at any time; none where there is no such cap.
[[nodiscard]] std::optional<int64_t> byte_cap_rows(const SessionOptions & options, const RaggedKvCache & cache);

/// Most rows that the first prompt of n_tokens may keep; none where nothing caps it. The byte cap also has to take
/// `n_reserved` tokens that will be generated.
/// Throws Error{invalid_argument} that states what is lacking where not even one row per KV head is left.
[[nodiscard]] std::optional<int64_t> prompt_cap_rows(const SessionOptions & options, const RaggedKvCache & cache,
                                                     int32_t n_tokens, int32_t n_reserved);

}  // namespace kvsieve
