// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>

#include "gguf/gguf_file.h"

namespace kvsieve {

/// What is needed beside libmtmd's own reading.
struct MmprojInfo {
    std::string projector;
    int32_t side = 0;  ///< token grid of an image that is encoded whole, on each side; 0 where it is not known
};

/// Refuses what libmtmd would abort on. For LLaVA's "mlp" and Qwen-VL's mergers every key and tensor; for others the
/// keys, the widths and the layers' shapes. `n_embd` is the language model's. Throws Error{bad_input}.
[[nodiscard]] MmprojInfo check_mmproj(const GgufFile & file, int32_t n_embd);

}  // namespace kvsieve
