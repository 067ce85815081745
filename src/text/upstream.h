// SPDX-License-Identifier: MIT
// Process-wide state of ggml and libllama.
#pragma once

#include <ggml.h>

#include <string>

namespace kvsieve {

/// Starts libllama's backend and routes its messages, once; silent until set_log_callback() is called. Whoever
/// uses libllama or ggml beside a TextModel calls it first.
void ensure_upstream();

/// A ggml_log_callback that assembles lines and hands them to the library's log callback.
void route_upstream_log(ggml_log_level level, const char * text, void * user_data);

/// Collects the error messages of upstream on this thread while it lives, so that they can become part of an
/// Error's sentence. One at a time per thread.
class UpstreamErrors {
  public:
    UpstreamErrors();
    ~UpstreamErrors();
    UpstreamErrors(const UpstreamErrors &) = delete;
    UpstreamErrors & operator=(const UpstreamErrors &) = delete;
    /// The first message in one line without the function's name; "no reason given" where there was none.
    [[nodiscard]] std::string text() const;

  private:
    std::string collected_;
};

}  // namespace kvsieve
