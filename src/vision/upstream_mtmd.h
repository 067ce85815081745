// SPDX-License-Identifier: MIT
#pragma once

namespace kvsieve {

/// ensure_upstream(), and libmtmd's messages routed to the log callback.
void ensure_upstream_mtmd();

}  // namespace kvsieve
