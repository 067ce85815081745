// SPDX-License-Identifier: MIT
// The grid of an evaluation: methods x (keep and budget) x KV types, from what the user typed.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "eval/results.h"
#include "kvsieve/policy.h"

namespace kvsieve {

/// Lists as typed, separated by commas.
struct GridText {
    std::string_view methods;   ///< "prefixkv,aircache:alpha=0.8:queries=last", or "all" of the registry; kOracle too
    std::string_view keeps;     ///< "0.5,0.2", may be empty
    std::string_view budgets;   ///< shares of the full f16 bytes, may be empty
    std::string_view kv_types;  ///< "f16,q8_0,q4_0-unrotated,auto"; auto: methods that choose row types
};

/// Cells in the order of methods, then keeps, then budgets, then types. A method that takes no keep, or that has the
/// parameter profile=FILE, has one cell for each type, with keep 1. Throws Error{invalid_argument}: a list that is
/// empty or repeats itself, an unknown method, parameter or type, a keep that the method does not take, a budget
/// outside (0, 1].
[[nodiscard]] std::vector<CellKey> parse_grid(const GridText & text);

/// The method of the registry that plans a cell: the oracle's is sieve.
[[nodiscard]] std::string registered_method(const CellKey & key);
/// A cell's parameters of its method: without the profile, with what the type auto asks for.
[[nodiscard]] std::map<std::string, std::string> method_params(const CellKey & key);
/// What a cell asks of its method; reads its profile. Throws what read_profile() throws.
[[nodiscard]] MethodOptions method_options(const CellKey & key);

/// What CellKey::kv_type says: "q8_0-unrotated" is q8_0 without the Hadamard rotation, "auto" begins as f16.
struct CellRows {
    std::string type;  ///< f16, q8_0 or q4_0
    bool rotate = true;
};
[[nodiscard]] CellRows cell_rows(std::string_view kv_type);

/// Names of metrics in the order typed. Throws Error{invalid_argument} for an empty list, a name that is not known or
/// that comes twice.
[[nodiscard]] std::vector<std::string> parse_metrics(std::string_view text);

}  // namespace kvsieve
