// SPDX-License-Identifier: MIT
#include "vision/upstream_mtmd.h"

#include <mtmd-helper.h>

#include <mutex>

#include "text/upstream.h"

namespace kvsieve {

void ensure_upstream_mtmd() {
    ensure_upstream();
    static std::once_flag once;
    std::call_once(once, [] { mtmd_helper_log_set(route_upstream_log, nullptr); });
}

}  // namespace kvsieve
