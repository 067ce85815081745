// SPDX-License-Identifier: MIT
#include "grammar.h"

#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstdio>

#include "engine/model_impl.h"
#include "kvsieve/error.h"
#include "text/sampler.h"

namespace {

/// Holds back what is written to stderr while it lives.
class StderrCapture {
  public:
    StderrCapture() : saved_(dup(STDERR_FILENO)), held_(memfd_create("stderr", MFD_CLOEXEC)) {
        std::fflush(stderr);
        dup2(held_, STDERR_FILENO);
    }
    ~StderrCapture() {
        std::fflush(stderr);
        dup2(saved_, STDERR_FILENO);
        close(saved_);
        close(held_);
    }
    StderrCapture(const StderrCapture &) = delete;
    StderrCapture & operator=(const StderrCapture &) = delete;
    [[nodiscard]] std::string first_line() const {
        std::fflush(stderr);
        std::array<char, 200> text{};
        const ssize_t n = pread(held_, text.data(), text.size(), 0);
        const std::string all(text.data(), n > 0 ? static_cast<size_t>(n) : 0);
        return all.substr(0, all.find('\n'));
    }

  private:
    int saved_;
    int held_;
};

}  // namespace

void check_grammar(const kvsieve::Model & model, const std::string & grammar) {
    if (grammar.empty()) {
        return;
    }
    const StderrCapture capture;
    kvsieve::SamplerOptions options;
    options.grammar = grammar;
    try {
        const kvsieve::Sampler sampler(model.impl().text, options);
    } catch (const kvsieve::Error & e) {
        const std::string reason = capture.first_line();
        throw kvsieve::Error(e.code(), e.what() + (reason.empty() ? "" : " (" + reason + ")"));
    }
}
