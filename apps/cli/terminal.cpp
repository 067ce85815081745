// SPDX-License-Identifier: MIT
#include "terminal.h"

#include <fmt/format.h>
#include <langinfo.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "format.h"

namespace {

constexpr std::chrono::milliseconds kShowAfter{500};
constexpr std::chrono::milliseconds kTick{100};
constexpr double kShowLeftAfter = 5.0;  // seconds, until an estimate is worth something

int terminal_width() {
    winsize size{};
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
        return size.ws_col;
    }
    const char * columns = std::getenv("COLUMNS");
    const int width = columns != nullptr ? std::atoi(columns) : 0;
    return width > 0 ? width : 80;
}

}  // namespace

TerminalStyle TerminalStyle::of_stderr() {
    std::setlocale(LC_CTYPE, "");
    TerminalStyle style;
    style.is_tty = isatty(STDERR_FILENO) != 0;
    const char * no_color = std::getenv("NO_COLOR");
    const char * term = std::getenv("TERM");
    style.color =
        style.is_tty && (no_color == nullptr || *no_color == '\0') && term != nullptr && std::strcmp(term, "dumb") != 0;
    style.utf8 = std::strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    style.width = std::clamp(terminal_width(), 40, 200);
    return style;
}

std::string TerminalStyle::paint(const char * code, std::string_view text) const {
    return color ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : std::string(text);
}

std::string bar(const TerminalStyle & style, double share, int width) {
    static constexpr std::array kEighths{"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    share = std::clamp(share, 0.0, 1.0);
    std::string filled;
    int columns = 0;
    if (style.utf8) {
        const int eighths = share > 0.0 ? std::max(1, static_cast<int>(share * width * 8 + 0.5)) : 0;
        for (columns = 0; columns < eighths / 8; ++columns) {
            filled += "█";
        }
        if (eighths % 8 != 0) {
            filled += kEighths[static_cast<size_t>(eighths % 8)];
            ++columns;
        }
    } else {
        columns = share > 0.0 ? std::max(1, static_cast<int>(share * width + 0.5)) : 0;
        filled.assign(static_cast<size_t>(columns), '#');
    }
    std::string rest;
    for (int i = columns; i < width; ++i) {
        rest += style.pick("·", ".");
    }
    return style.accent(filled) + style.dim(rest);
}

Progress::Progress(const TerminalStyle & style) : style_(style) {
    if (style_.is_tty) {
        ticker_ = std::thread([this] { tick(); });
    }
}

Progress::~Progress() {
    hide();
    if (ticker_.joinable()) {
        {
            const std::lock_guard lock(mutex_);
            stop_ = true;
        }
        changed_.notify_all();
        ticker_.join();
    }
}

void Progress::update(std::string_view label, double share) {
    const std::lock_guard lock(mutex_);
    if (!active_ || label_ != label) {
        began_ = Clock::now();
        label_ = label;
        active_ = true;
        erase();
    }
    share_ = share;
}

void Progress::hide() {
    const std::lock_guard lock(mutex_);
    active_ = false;
    erase();
}

void Progress::tick() {
    std::unique_lock lock(mutex_);
    while (!stop_) {
        changed_.wait_for(lock, kTick);
        if (active_ && !stop_ && Clock::now() - began_ >= kShowAfter) {
            draw();
        }
    }
}

void Progress::draw() {
    const auto seconds = std::chrono::duration<double>(Clock::now() - began_).count();
    std::string line = fmt::format("{:<12}", label_);
    if (share_ >= 0.0) {
        line += fmt::format(" {} {:3.0f}%", bar(style_, share_, std::clamp(style_.width - 40, 10, 40)), share_ * 100);
    }
    std::string time = fmt::format("{:.1f} s", seconds);
    if (share_ > 0.0 && seconds >= kShowLeftAfter) {
        time += fmt::format(", {} left", format_duration(seconds * (1.0 - share_) / share_));
    }
    std::fprintf(stderr, "\r\x1b[K%s %s", line.c_str(), style_.dim(time).c_str());
    std::fflush(stderr);
    visible_ = true;
}

void Progress::erase() {
    if (visible_) {
        std::fputs("\r\x1b[K", stderr);
        std::fflush(stderr);
        visible_ = false;
    }
}
