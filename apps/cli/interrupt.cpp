// SPDX-License-Identifier: MIT
#include "interrupt.h"

#include <array>
#include <csignal>

namespace {

volatile std::sig_atomic_t g_requested = 0;

constexpr std::array kSignals{SIGINT, SIGTERM};

void on_signal(int /*number*/) {
    g_requested = 1;
}

}  // namespace

InterruptGuard::InterruptGuard() {
    g_requested = 0;
    struct sigaction action {};
    action.sa_handler = on_signal;
    // Back to the default after the first one; system calls go on.
    action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
    for (const int number : kSignals) {
        sigaction(number, &action, nullptr);
    }
}

InterruptGuard::~InterruptGuard() {
    for (const int number : kSignals) {
        std::signal(number, SIG_DFL);
    }
}

bool InterruptGuard::requested() {
    return g_requested != 0;
}

kvsieve::Callbacks until_interrupted() {
    kvsieve::Callbacks callbacks;
    callbacks.is_cancelled = InterruptGuard::requested;
    return callbacks;
}
