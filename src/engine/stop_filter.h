// SPDX-License-Identifier: MIT
// Ends an answer at a stop text, also where it is spread over several pieces.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kvsieve {

/// Holds back text that may be the beginning of a stop text. Not thread-safe.
class StopFilter {
  public:
    /// Throws Error{invalid_argument} for an empty stop text.
    explicit StopFilter(std::vector<std::string> stops);
    /// Text that is certain to be part of the answer. After a stop text was found nothing more comes.
    [[nodiscard]] std::string push(std::string_view text);
    /// The end of the answer: what was held back.
    [[nodiscard]] std::string finish();
    [[nodiscard]] bool stopped() const { return stopped_; }

  private:
    std::vector<std::string> stops_;
    std::string held_;
    bool stopped_ = false;
};

}  // namespace kvsieve
