// SPDX-License-Identifier: MIT
#include "conversation.h"

#include <fmt/format.h>
#include <unistd.h>

#include <iostream>
#include <utility>

#include "interrupt.h"
#include "io/atomic_file.h"
#include "kvsieve/error.h"
#include "overlay.h"
#include "print.h"
#include "question_image.h"

using namespace kvsieve;
namespace fs = std::filesystem;

namespace {

constexpr std::string_view kHelp =
    "/image PATH QUESTION  ask about another image\n"
    "/stats                tokens, memory and times of the last turn\n"
    "/reset                forget the conversation\n"
    "/quit                 leave (or Ctrl-D)\n";

std::string_view phase_label(Phase phase) {
    switch (phase) {
        case Phase::vision:
            return "image";
        case Phase::prefill:
            return "prefill";
        case Phase::plan:
            return "plan";
        case Phase::compact:
            return "compaction";
        case Phase::decode:
            return "decode";
    }
    return "";
}

std::string trimmed(const std::string & text) {
    const size_t from = text.find_first_not_of(" \t\r");
    return from == std::string::npos ? "" : text.substr(from, text.find_last_not_of(" \t\r") - from + 1);
}

/// "first rest of it", or "\"first with spaces\" rest of it"
std::pair<std::string, std::string> split_word(const std::string & text) {
    const bool quoted = text.starts_with('"');
    const size_t end = quoted ? text.find('"', 1) : text.find_first_of(" \t");
    const std::string word = quoted ? text.substr(1, end == std::string::npos ? end : end - 1) : text.substr(0, end);
    return {word, end == std::string::npos ? "" : trimmed(text.substr(end + 1))};
}

}  // namespace

Conversation::Conversation(RunSetup setup, Session session, GenerateOptions generate, ShowOptions show,
                           const TerminalStyle & style, Progress & progress)
    : setup_(std::move(setup)),
      session_(std::move(session)),
      generate_(std::move(generate)),
      show_(std::move(show)),
      style_(style),
      progress_(progress) {}

Callbacks Conversation::callbacks() {
    Callbacks callbacks = until_interrupted();
    callbacks.on_progress = [this](Phase phase, double share) {
        // An image is encoded in one piece: its share says nothing.
        progress_.update(phase_label(phase), phase == Phase::vision ? -1.0 : share);
    };
    callbacks.on_text = [this](std::string_view text) {
        progress_.hide();
        if (!show_.json) {
            print_out(text);
            streamed_ = true;
            ends_line_ = text.ends_with('\n');
        }
    };
    return callbacks;
}

void Conversation::ask(const Turn & turn) {
    streamed_ = ends_line_ = false;
    const auto end_line = [this] {
        progress_.hide();
        if (streamed_ && !ends_line_) {
            print_out("\n");
        }
    };
    try {
        const InterruptGuard interrupts;
        last_ = session_.ask(turn, generate_, callbacks());
    } catch (...) {
        end_line();
        throw;
    }
    end_line();
    ++n_turn_;
    setup_.method.options = session_.method_options();  // a cap on the rows decides on keep
    if (show_.json) {
        const auto json = turn_json(setup_, session_, last_, n_turn_);
        print_out(json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
    } else if (show_.short_stats) {
        fmt::print(stderr, "{}\n", style_.dim(short_statistics(session_, last_)));
    } else {
        std::fputs("\n", stderr);
        show_statistics();
    }
    if (n_turn_ == 1 && !show_.overlay.empty()) {
        write_overlay();
    }
}

void Conversation::show_statistics() {
    const std::string chart =
        session_.plan() == nullptr ? "" : budget_chart(style_, setup_, *session_.plan(), session_.prompt_shape());
    fmt::print(stderr, "{}{}", statistics(style_, setup_, session_, last_), chart);
}

void Conversation::write_overlay() {
    std::vector<OverlayImage> images;
    const size_t n = std::min(session_.images().size(), show_.overlay_images.size());
    for (size_t i = 0; i < n; ++i) {
        images.push_back({show_.overlay_images[i], session_.images()[i]});
    }
    const Canvas picture = draw_overlay(images, *session_.plan(), session_.prompt_shape(),
                                        encoder_view(setup_.files.mmproj.value()), method_title(setup_.method));
    atomic_write_file(show_.overlay, picture.png());
    show_.overlay_images.clear();
    if (!show_.json) {
        fmt::print(stderr, "{}\n", style_.dim("kept tokens drawn in " + show_.overlay.string()));
    }
}

void Conversation::interact(std::vector<fs::path> images) {
    waiting_images_ = std::move(images);
    const bool typed = isatty(STDIN_FILENO) != 0;
    if (typed) {
        fmt::print(stderr, "{}\n", style_.dim("Ask away; /help lists the commands, Ctrl-D ends."));
    }
    for (std::string line;;) {
        if (typed) {
            fmt::print(stderr, "{}", style_.bold("> "));
            std::fflush(stderr);
        }
        if (!std::getline(std::cin, line)) {
            break;
        }
        line = trimmed(line);
        if (line.empty()) {
            continue;
        }
        try {
            if (handle(line) == Next::quit) {
                return;
            }
        } catch (const Error & e) {
            if (!typed) {
                throw;
            }
            if (e.code() == ErrorCode::cancelled) {
                fmt::print(stderr, "{}\n", style_.dim("stopped"));
            } else {
                fmt::print(stderr, "kvsieve: {}\n", e.what());
            }
        }
    }
    if (typed) {
        std::fputs("\n", stderr);
    }
}

Conversation::Next Conversation::handle(const std::string & line) {
    if (line.starts_with('/')) {
        return command(line);
    }
    ask_line(line, std::exchange(waiting_images_, {}));
    return Next::go_on;
}

/// The images wait for another question if the session did not take them.
void Conversation::ask_line(const std::string & text, std::vector<fs::path> images) {
    const int32_t before = session_.n_processed();
    try {
        ask({.text = text, .images = images});
    } catch (const Error &) {
        if (session_.n_processed() == before && n_turn_ == 0) {
            waiting_images_ = std::move(images);
        }
        throw;
    }
}

Conversation::Next Conversation::command(const std::string & line) {
    const auto [name, rest] = split_word(line);
    if (name == "/quit" || name == "/exit") {
        return Next::quit;
    }
    if (name == "/image") {
        const auto [path, question] = split_word(rest);
        if (path.empty() || question.empty()) {
            throw Error(ErrorCode::invalid_argument, "/image takes a path and a question");
        }
        (void)load_question_image(path);
        std::vector<fs::path> images = std::exchange(waiting_images_, {});
        images.emplace_back(path);
        ask_line(question, std::move(images));
    } else if (name == "/stats") {
        if (n_turn_ == 0) {
            throw Error(ErrorCode::invalid_argument, "/stats has nothing to show before the first question");
        }
        show_statistics();
    } else if (name == "/reset") {
        session_.reset();
        n_turn_ = 0;
    } else if (name == "/help") {
        fmt::print(stderr, "{}", kHelp);
    } else {
        throw Error(ErrorCode::invalid_argument,
                    "unknown command '" + name + "'; known are /image, /stats, /reset, /help and /quit");
    }
    return Next::go_on;
}
