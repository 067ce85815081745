// SPDX-License-Identifier: MIT
// Turns token bytes into complete UTF-8 text while it is generated.
#pragma once

#include <string>
#include <string_view>

namespace kvsieve {

/// Holds back an incomplete sequence at the end until its rest comes. Bytes that can never become valid UTF-8 are
/// replaced by U+FFFD, one for each maximal wrong part, so that what leaves is always valid.
class Utf8Stream {
  public:
    /// Complete text so far that was not given before.
    [[nodiscard]] std::string push(std::string_view bytes);
    /// The end: an incomplete rest becomes U+FFFD.
    [[nodiscard]] std::string finish();

  private:
    std::string held_;
};

}  // namespace kvsieve
