// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include "eval/results.h"

namespace kvsieve {

/// The report as one self-contained HTML file: no script, no font, nothing fetched. Well-formed XML as well. Depends on
/// the results only.
[[nodiscard]] std::string report_html(const Results & results);

}  // namespace kvsieve
