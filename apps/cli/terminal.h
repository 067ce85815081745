// SPDX-License-Identifier: MIT
// What stderr can show: width, colours and characters; and a progress line on it.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

/// How text on stderr may look.
struct TerminalStyle {
    bool is_tty = false;
    bool color = false;  ///< a terminal, and NO_COLOR is not set
    bool utf8 = false;   ///< the locale's characters are UTF-8
    int width = 80;      ///< columns

    /// Of this process's stderr. Sets the locale's character type.
    [[nodiscard]] static TerminalStyle of_stderr();

    [[nodiscard]] std::string bold(std::string_view text) const { return paint("1", text); }
    [[nodiscard]] std::string dim(std::string_view text) const { return paint("2", text); }
    [[nodiscard]] std::string accent(std::string_view text) const { return paint("36", text); }
    /// The first form in UTF-8 locales, else the second.
    [[nodiscard]] std::string_view pick(std::string_view fancy, std::string_view plain) const {
        return utf8 ? fancy : plain;
    }

  private:
    [[nodiscard]] std::string paint(const char * code, std::string_view text) const;
};

/// A bar of `width` columns filled by `share` in [0, 1], with eighths of a column in UTF-8. `filled` columns get
/// the accent colour.
[[nodiscard]] std::string bar(const TerminalStyle & style, double share, int width);

/// One line on stderr while long work goes on. Shows nothing where stderr is no terminal, nor for work shorter
/// than half a second; what it showed is erased. Thread-safe.
class Progress {
  public:
    explicit Progress(const TerminalStyle & style);
    ~Progress();
    Progress(const Progress &) = delete;
    Progress & operator=(const Progress &) = delete;

    /// `share` in [0, 1]; negative = not known.
    void update(std::string_view label, double share);
    /// Erases the line, until the next update().
    void hide();

  private:
    void tick();
    void draw();
    void erase();

    using Clock = std::chrono::steady_clock;
    const TerminalStyle style_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::string label_;
    double share_ = -1.0;
    Clock::time_point began_;
    bool active_ = false;
    bool visible_ = false;
    bool stop_ = false;
    std::thread ticker_;
};
