// SPDX-License-Identifier: MIT
// Turns of a session on the terminal: answers on stdout, everything else on stderr.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "canvas.h"
#include "kvsieve/engine.h"
#include "run_report.h"
#include "terminal.h"

/// How turns are shown.
struct ShowOptions {
    bool json = false;  ///< one JSON object for each turn instead of streamed text
    bool short_stats = false;
    std::filesystem::path overlay = {};  ///< empty: none; drawn after the first turn
    std::vector<Canvas> overlay_images = {};
};

class Conversation {
  public:
    Conversation(RunSetup setup, kvsieve::Session session, kvsieve::GenerateOptions generate, ShowOptions show,
                 const TerminalStyle & style, Progress & progress);

    /// One turn. Throws what Session::ask() throws.
    void ask(const kvsieve::Turn & turn);
    /// Reads questions and commands from standard input until its end or /quit. `images` belong to the first
    /// question. On a terminal an Error is shown and the conversation goes on.
    void interact(std::vector<std::filesystem::path> images);
    [[nodiscard]] const kvsieve::Answer & last_answer() const { return last_; }

  private:
    enum class Next { go_on, quit };
    Next command(const std::string & line);
    Next handle(const std::string & line);
    void ask_line(const std::string & text, std::vector<std::filesystem::path> images);
    void show_statistics();
    void write_overlay();
    [[nodiscard]] kvsieve::Callbacks callbacks();

    RunSetup setup_;
    kvsieve::Session session_;
    kvsieve::GenerateOptions generate_;
    ShowOptions show_;
    const TerminalStyle & style_;
    Progress & progress_;
    std::vector<std::filesystem::path> waiting_images_;  ///< for the next question
    kvsieve::Answer last_;
    int n_turn_ = 0;
    bool streamed_ = false;  ///< text of the running turn was printed
    bool ends_line_ = false;
};
