// SPDX-License-Identifier: MIT
// The instruction sets of the kernels, one after the other.
#pragma once

#include <gtest/gtest.h>

#include "policy/highway_targets.h"
// what stands above decides what Highway offers
#include <hwy/targets.h>

namespace kvsieve {

/// Runs the body once per instruction set that this machine has and the build holds; `target` tells the kernel's.
template <class Target, class Body>
void on_every_target(Target && target, Body && body) {
    for (const int64_t one : hwy::SupportedAndGeneratedTargets()) {
        hwy::SetSupportedTargetsForTest(one);
        ASSERT_STREQ(target(), hwy::TargetName(one));
        SCOPED_TRACE(hwy::TargetName(one));
        body();
    }
    hwy::SetSupportedTargetsForTest(0);
}

}  // namespace kvsieve
