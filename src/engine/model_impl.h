// SPDX-License-Identifier: MIT
// What a Model holds, for the engine's own files.
#pragma once

#include <optional>

#include "gguf/gguf_file.h"
#include "kvsieve/engine.h"
#include "text/text_model.h"
#include "vision/vision_encoder.h"

namespace kvsieve {

struct Model::Impl {
    explicit Impl(const ModelOptions & options);

    GgufFile file;
    ModelInfo info;
    TextModel text;
    std::optional<VisionEncoder> vision;
    int32_t n_threads = 1;
};

}  // namespace kvsieve
