// SPDX-License-Identifier: MIT
// Messages of kvsieve and of the libraries under it (ggml, libllama, libmtmd). The library never prints by
// itself: without a callback, messages are dropped.
#pragma once

#include <functional>
#include <string_view>

namespace kvsieve {

enum class LogLevel { debug, info, warning, error };

/// Gets one complete line without its newline. May be called from any thread, one call at a time.
using LogCallback = std::function<void(LogLevel, std::string_view)>;

/// Replaces the callback; an empty one silences everything (the default). `least` is the lowest level passed on.
void set_log_callback(LogCallback callback, LogLevel least = LogLevel::info);

/// For programs, not for libraries: what ggml still refuses by aborting the process ends it with one sentence on
/// stderr and exit code 1 instead of a stack trace and a core file.
void install_abort_handler();

}  // namespace kvsieve
