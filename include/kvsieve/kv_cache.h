// SPDX-License-Identifier: MIT
// What the KV cache stores and how its size is stated.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace kvsieve {

/// Element type of cached rows. One row is the key or the value of one token in one KV head.
enum class KvType { f16, q8_0, q4_0 };

/// Bytes of a row in 64ths of those of an f16 row: 2 a number, 34 or 18 for a block of 32.
[[nodiscard]] constexpr int64_t row_cost(KvType type) noexcept {
    return type == KvType::f16 ? 64 : type == KvType::q8_0 ? 34 : 18;
}

/// "f16", "q8_0" or "q4_0"; throws Error{invalid_argument} for another name.
[[nodiscard]] KvType parse_kv_type(std::string_view name);
[[nodiscard]] std::string_view kv_type_name(KvType type) noexcept;

/// Sizes of one sequence's cache in bytes. "Held" counts rows x row size exactly; "reserved" is what the
/// arenas take of memory, with at most 32 spare rows per extent.
struct KvUsage {
    uint64_t rows = 0;            ///< rows held, summed over layers and KV heads (a key and its value are one row)
    uint64_t bytes_held = 0;      ///< exact bytes of these rows (key + value)
    uint64_t bytes_reserved = 0;  ///< bytes of the arenas
    uint64_t bytes_full_f16 = 0;  ///< what the same tokens take with every row kept in f16
    std::vector<std::vector<int32_t>> rows_of;  ///< [L][G]
    std::vector<std::vector<KvType>> type_of;   ///< [L][G]
};

}  // namespace kvsieve
