// SPDX-License-Identifier: MIT
// Starts the program as a user would, and the files that its tests give it.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace cli_test {

namespace fs = std::filesystem;

inline std::string read_file(const fs::path & path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

inline void write_file(const fs::path & path, const std::string & bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
}

/// A folder that goes with its owner.
class TempFolder {
  public:
    TempFolder() {
        std::string name = (fs::temp_directory_path() / "kvsieve-cli-XXXXXX").string();
        if (mkdtemp(name.data()) == nullptr) {
            throw std::runtime_error("no temporary folder");
        }
        path_ = name;
    }
    ~TempFolder() {
        std::error_code ec;
        fs::remove_all(path_, ec);
    }
    TempFolder(const TempFolder &) = delete;
    TempFolder & operator=(const TempFolder &) = delete;
    [[nodiscard]] fs::path operator/(const std::string & name) const { return path_ / name; }
    [[nodiscard]] const fs::path & path() const { return path_; }

  private:
    fs::path path_;
};

struct Finished {
    int exit_code = -1;  ///< 128 + signal where one ended it
    std::string out;
    std::string err;
};

/// A started program with its output in files.
class Program {
  public:
    explicit Program(std::vector<std::string> args, const std::string & input = "") {
        write_file(files_ / "in", input);
        posix_spawn_file_actions_t actions{};
        posix_spawn_file_actions_init(&actions);
        const std::array names{files_ / "in", files_ / "out", files_ / "err"};
        posix_spawn_file_actions_addopen(&actions, 0, names[0].c_str(), O_RDONLY, 0);
        posix_spawn_file_actions_addopen(&actions, 1, names[1].c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        posix_spawn_file_actions_addopen(&actions, 2, names[2].c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        args.insert(args.begin(), KVSIEVE_PROGRAM);
        std::vector<char *> argv;
        for (std::string & arg : args) {
            argv.push_back(arg.data());
        }
        argv.push_back(nullptr);
        setenv("KVSIEVE_MODELS", KVSIEVE_MODELS_DIR, 1);
        const int error = posix_spawn(&pid_, KVSIEVE_PROGRAM, &actions, nullptr, argv.data(), environ);
        posix_spawn_file_actions_destroy(&actions);
        if (error != 0) {
            throw std::runtime_error(std::string("cannot start ") + KVSIEVE_PROGRAM + ": " + std::strerror(error));
        }
    }
    void kill(int number) const { ::kill(pid_, number); }
    [[nodiscard]] Finished wait() const {
        int status = 0;
        waitpid(pid_, &status, 0);
        return {.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
                .out = read_file(files_ / "out"),
                .err = read_file(files_ / "err")};
    }

  private:
    TempFolder files_;
    pid_t pid_ = -1;
};

inline Finished run_program(std::vector<std::string> args, const std::string & input = "") {
    return Program(std::move(args), input).wait();
}

/// Exit code 2, one line on stderr that begins with the program's name, nothing on stdout.
inline void expect_refused(const Finished & finished, const std::vector<std::string> & parts) {
    EXPECT_EQ(finished.exit_code, 2);
    EXPECT_EQ(finished.out, "");
    EXPECT_TRUE(finished.err.starts_with("kvsieve: ")) << finished.err;
    EXPECT_EQ(std::count(finished.err.begin(), finished.err.end(), '\n'), 1) << finished.err;
    EXPECT_TRUE(finished.err.ends_with('\n'));
    EXPECT_LT(finished.err.size(), 2000U);
    for (const std::string & part : parts) {
        EXPECT_NE(finished.err.find(part), std::string::npos) << "expected '" << part << "' in: " << finished.err;
    }
}

/// A random model of two layers that computes in milliseconds.
inline void make_small_model(const fs::path & path, int head_dim = 16) {
    const Finished made =
        run_program({"make-model", "-o", path.string(), "--layers", "2", "--width", "64", "--heads", "4", "--kv-heads",
                     "2", "--head-dim", std::to_string(head_dim), "--ff", "96", "--seed", "7"});
    ASSERT_EQ(made.exit_code, 0) << made.err;
}

/// A copy of a file in which one piece of bytes is another one of the same length.
inline void patch_file(const fs::path & from, const fs::path & to, const std::string & old_bytes,
                       const std::string & new_bytes) {
    ASSERT_EQ(old_bytes.size(), new_bytes.size());
    std::string bytes = read_file(from);
    size_t at = bytes.find(old_bytes);
    ASSERT_NE(at, std::string::npos);
    for (; at != std::string::npos; at = bytes.find(old_bytes, at + new_bytes.size())) {
        bytes.replace(at, old_bytes.size(), new_bytes);
    }
    write_file(to, bytes);
}

inline std::string example(const std::string & name) {
    return (fs::path(KVSIEVE_MODELS_DIR) / "examples" / name).string();
}

}  // namespace cli_test
