// SPDX-License-Identifier: MIT
// What somebody sees who sits at a terminal.
#include "terminal.h"

#include <pty.h>

#include <optional>

#include "program.h"

namespace cli_test {
namespace {

/// Everything that a program shows on a terminal where `keys` are typed; nothing where there are no pseudo terminals.
std::optional<std::string> run_on_terminal(const std::vector<std::string> & args, const std::string & keys,
                                           bool no_color) {
    std::vector<std::string> words{KVSIEVE_PROGRAM};
    words.insert(words.end(), args.begin(), args.end());
    std::vector<char *> argv;
    for (std::string & word : words) {
        argv.push_back(word.data());
    }
    argv.push_back(nullptr);
    int terminal = -1;
    winsize size{.ws_row = 40, .ws_col = 100, .ws_xpixel = 0, .ws_ypixel = 0};
    const pid_t pid = forkpty(&terminal, nullptr, nullptr, &size);
    if (pid == 0) {
        setenv("TERM", "xterm", 1);
        setenv("LC_ALL", "C.UTF-8", 1);
        no_color ? setenv("NO_COLOR", "1", 1) : unsetenv("NO_COLOR");
        execv(argv[0], argv.data());
        _exit(127);
    }
    if (pid < 0) {
        return std::nullopt;
    }
    EXPECT_EQ(write(terminal, keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
    std::string shown;
    std::array<char, 4096> buffer{};
    for (ssize_t n = 0; (n = read(terminal, buffer.data(), buffer.size())) > 0;) {
        shown.append(buffer.data(), static_cast<size_t>(n));
    }
    int status = 0;
    waitpid(pid, &status, 0);
    close(terminal);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << shown;
    return shown;
}

TEST(Terminal, AConversationGoesOnAfterAMistake) {
    const TempFolder folder;
    make_small_model(folder / "m.gguf");
    const std::vector<std::string> args{"run", "-i", "-m", (folder / "m.gguf").string(), "-n", "3", "-t", "1"};
    const std::string keys = "Hello\n/nonsense\n/stats\n\x04";
    const auto shown = run_on_terminal(args, keys, false);
    if (!shown) {
        GTEST_SKIP() << "this system has no pseudo terminals (/dev/pts)";
    }
    for (const char * part : {"> ", "unknown command '/nonsense'", "KV cache", "\x1b[1m", "→"}) {
        EXPECT_NE(shown->find(part), std::string::npos) << part << " in " << *shown;
    }
    EXPECT_EQ(run_on_terminal(args, keys, true).value().find("\x1b["), std::string::npos) << "NO_COLOR is set";
}

TEST(Progress, ShowsNothingForShortWorkAndNothingOutsideATerminal) {
    testing::internal::CaptureStderr();
    {
        TerminalStyle style;
        style.is_tty = true;
        Progress progress(style);
        progress.update("short", 0.5);
        std::this_thread::sleep_for(std::chrono::milliseconds(150));
        progress.hide();
        style.is_tty = false;
        Progress silent(style);
        silent.update("long", 0.5);
    }
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST(Progress, ErasesWhatItShowed) {
    testing::internal::CaptureStderr();
    {
        TerminalStyle style;
        style.is_tty = true;
        Progress progress(style);
        progress.update("long work", 0.25);
        std::this_thread::sleep_for(std::chrono::milliseconds(800));
    }
    const std::string shown = testing::internal::GetCapturedStderr();
    EXPECT_NE(shown.find("long work"), std::string::npos);
    EXPECT_NE(shown.find(" 25%"), std::string::npos);
    EXPECT_TRUE(shown.ends_with("\r\x1b[K")) << shown;
}

}  // namespace
}  // namespace cli_test
