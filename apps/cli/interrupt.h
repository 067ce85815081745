// SPDX-License-Identifier: MIT
#pragma once

#include "kvsieve/engine.h"

/// While one lives, the first SIGINT or SIGTERM asks the running work to stop and a second one kills the program.
/// At most one at a time.
class InterruptGuard {
  public:
    InterruptGuard();
    ~InterruptGuard();
    InterruptGuard(const InterruptGuard &) = delete;
    InterruptGuard & operator=(const InterruptGuard &) = delete;
    [[nodiscard]] static bool requested();
};

/// Callbacks that only cancel, once that was asked for.
[[nodiscard]] kvsieve::Callbacks until_interrupted();
