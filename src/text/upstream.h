// SPDX-License-Identifier: MIT
// Process-wide state of ggml and libllama.
#pragma once

#include <ggml.h>

namespace kvsieve {

/// Starts libllama's backend and routes its messages, once; silent until set_log_callback() is called. Whoever
/// uses libllama or ggml beside a TextModel calls it first.
void ensure_upstream();

/// A ggml_log_callback that assembles lines and hands them to the library's log callback.
void route_upstream_log(ggml_log_level level, const char * text, void * user_data);

}  // namespace kvsieve
