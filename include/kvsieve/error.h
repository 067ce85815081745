// SPDX-License-Identifier: MIT
#pragma once

#include <stdexcept>
#include <string>

namespace kvsieve {

/// What went wrong, as a class that the edges map to an exit code or an HTTP status.
enum class ErrorCode {
    invalid_argument,  ///< an option, parameter or call that cannot be meant (exit code 2, HTTP 400)
    bad_input,         ///< a file or data that is missing, damaged or does not fit (exit code 2, HTTP 400)
    too_large,         ///< a prompt, image or cache beyond a stated limit (exit code 2, HTTP 413)
    io,                ///< an output path that cannot be written (exit code 2, HTTP 500)
    runtime,           ///< a failure while running: out of memory, a backend that failed (exit code 1, HTTP 500)
    cancelled,         ///< stopped by the caller (exit code 1)
};

/// The one exception type of the library. `what()` is one sentence that names the thing, what was expected
/// and what came, without a trailing newline.
class Error : public std::runtime_error {
  public:
    Error(ErrorCode code, const std::string & message) : std::runtime_error(message), code_(code) {}
    [[nodiscard]] ErrorCode code() const noexcept { return code_; }

  private:
    ErrorCode code_;
};

/// Exit code of a program that ends with this error: 1 for a failure at run time, 2 for bad usage or bad input.
[[nodiscard]] constexpr int exit_code(ErrorCode code) noexcept {
    return code == ErrorCode::runtime || code == ErrorCode::cancelled ? 1 : 2;
}

}  // namespace kvsieve
