// SPDX-License-Identifier: MIT
// What a caller asks of a method, checked against the method's row in the registry.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "kvsieve/policy.h"

namespace kvsieve {

/// Options and parameters with their defaults filled in. The constructor throws Error{invalid_argument}
/// (Error{bad_input} for a profile's contents) for everything in the options that the method does not take or that is
/// out of range.
class BoundParams {
  public:
    BoundParams(const MethodInfo & info, const MethodOptions & options);
    /// A parameter of the method's schema; the name and kind are the method's own and must exist.
    [[nodiscard]] double number(const std::string & name) const { return std::get<double>(values_.at(name)); }
    [[nodiscard]] int32_t integer(const std::string & name) const { return static_cast<int32_t>(number(name)); }
    [[nodiscard]] const std::string & word(const std::string & name) const {
        return std::get<std::string>(values_.at(name));
    }
    /// Index of a word among its choices, for an enumeration declared in the same order.
    [[nodiscard]] size_t choice(const std::string & name) const { return choices_.at(name); }
    [[nodiscard]] bool has(const std::string & name) const { return values_.contains(name); }

    [[nodiscard]] double keep() const { return keep_; }
    [[nodiscard]] uint64_t seed() const { return seed_; }
    [[nodiscard]] const std::optional<Profile> & profile() const { return profile_; }

  private:
    std::map<std::string, std::variant<double, std::string>> values_;
    std::map<std::string, size_t> choices_;
    double keep_;
    uint64_t seed_;
    std::optional<Profile> profile_;
};

/// The parameter with which a method chooses row types itself, at its word "auto".
inline constexpr const char * kPrecision = "precision";
/// Has the method that parameter?
[[nodiscard]] bool can_choose_row_types(const MethodInfo & info);

}  // namespace kvsieve
