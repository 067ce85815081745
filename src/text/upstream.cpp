// SPDX-License-Identifier: MIT
#include "text/upstream.h"

#include <ggml.h>
#include <llama.h>
#include <unistd.h>

#include <cstdlib>
#include <mutex>
#include <string>
#include <utility>

#include "kvsieve/log.h"

namespace kvsieve {
namespace {

// Messages come in pieces (GGML_LOG_LEVEL_CONT); a line leaves when its newline comes.
struct LogState {
    std::mutex mutex;
    LogCallback callback;
    LogLevel least = LogLevel::info;
    LogLevel level = LogLevel::info;
    std::string line;
};

LogState & log_state() {
    static LogState & state = *new LogState;  // never destroyed: upstream may log from static destructors
    return state;
}

thread_local std::string * collector = nullptr;

LogLevel level_of(ggml_log_level level) {
    switch (level) {
        case GGML_LOG_LEVEL_ERROR:
            return LogLevel::error;
        case GGML_LOG_LEVEL_WARN:
            return LogLevel::warning;
        case GGML_LOG_LEVEL_INFO:
            return LogLevel::info;
        default:
            return LogLevel::debug;
    }
}

void write_all(std::string_view text) {
    while (!text.empty()) {
        const ssize_t n = write(STDERR_FILENO, text.data(), text.size());
        if (n <= 0) {
            return;
        }
        text.remove_prefix(static_cast<size_t>(n));
    }
}

[[noreturn]] void end_process(const char * message) {
    std::string text = "kvsieve: ggml gave up: ";
    for (const char * c = message; c != nullptr && *c != '\0'; ++c) {
        text += *c == '\n' ? ' ' : *c;
    }
    text.erase(text.find_last_not_of(' ') + 1);
    text += '\n';
    write_all(text);
    std::_Exit(1);
}

}  // namespace

void route_upstream_log(ggml_log_level level, const char * text, void * /*user_data*/) {
    if (collector != nullptr && text != nullptr && level == GGML_LOG_LEVEL_ERROR) {
        *collector += text;
    }
    LogState & state = log_state();
    const std::scoped_lock lock(state.mutex);
    if (!state.callback || text == nullptr) {
        return;
    }
    if (level != GGML_LOG_LEVEL_CONT) {
        state.level = level_of(level);
    }
    state.line += text;
    size_t begin = 0;
    for (size_t end = state.line.find('\n'); end != std::string::npos; end = state.line.find('\n', begin)) {
        if (end > begin && state.level >= state.least) {
            state.callback(state.level, std::string_view(state.line).substr(begin, end - begin));
        }
        begin = end + 1;
    }
    state.line.erase(0, begin);
}

UpstreamErrors::UpstreamErrors() {
    collector = &collected_;
}

UpstreamErrors::~UpstreamErrors() {
    collector = nullptr;
}

std::string UpstreamErrors::text() const {
    std::string line = collected_.substr(0, collected_.find('\n'));
    // "mtmd_init_from_file: error: clip_init: the reason"
    for (size_t colon = line.find(": "); colon != std::string::npos; colon = line.find(": ")) {
        const std::string head = line.substr(0, colon);
        if (head != "error" && (head.find(' ') != std::string::npos || head.find('_') == std::string::npos)) {
            break;
        }
        line.erase(0, colon + 2);
    }
    return line.empty() ? "no reason given" : line;
}

void ensure_upstream() {
    static std::once_flag once;
    std::call_once(once, [] {
        llama_log_set(route_upstream_log, nullptr);  // ggml's messages too
        llama_backend_init();
    });
}

void set_log_callback(LogCallback callback, LogLevel least) {
    ensure_upstream();
    LogState & state = log_state();
    const std::scoped_lock lock(state.mutex);
    state.callback = std::move(callback);
    state.least = least;
    state.line.clear();
}

void install_abort_handler() {
    ggml_set_abort_callback([](const char * message) { end_process(message); });
}

}  // namespace kvsieve
