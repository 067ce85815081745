// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>

#include "kvsieve/error.h"

namespace kvsieve::test {

/// The call throws an Error of this code whose sentence contains `part`.
inline void expect_error(ErrorCode code, const std::string & part, const std::function<void()> & call) {
    try {
        call();
        ADD_FAILURE() << "no error came, expected one with: " << part;
    } catch (const Error & error) {
        EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(code)) << error.what();
        EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
            << "the error says: " << error.what() << "\nexpected in it: " << part;
        EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    }
}

enum class Outcome { good, error, crash };

/// Runs the call in a child process: good, an Error, or a crash (a signal, or any other exception). The call must
/// compute with one thread: OpenMP's threads do not survive a fork.
inline Outcome outcome_of(const std::function<void()> & call) {
    constexpr int kError = 40, kOther = 41;
    const pid_t child = fork();
    if (child == 0) {
        int code = 0;
        try {
            call();
        } catch (const Error &) {
            code = kError;
        } catch (...) {
            code = kOther;
        }
        _exit(code);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (!WIFEXITED(status) || (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != kError)) {
        return Outcome::crash;
    }
    return WEXITSTATUS(status) == 0 ? Outcome::good : Outcome::error;
}

}  // namespace kvsieve::test
