// SPDX-License-Identifier: MIT
// What a Model holds, for the engine's own files.
#pragma once

#include <memory>
#include <mutex>
#include <optional>

#include "gguf/gguf_file.h"
#include "graph/packed_weights.h"
#include "graph/probes.h"
#include "kvsieve/engine.h"
#include "text/text_model.h"
#include "vision/vision_encoder.h"

namespace kvsieve {

struct Model::Impl {
    explicit Impl(const ModelOptions & options);

    GgufFile file;
    Weights weights;                         // in the file's order
    std::unique_ptr<const Decoder> decoder;  // of the context it was trained for; computes nothing
    ModelInfo info;
    TextModel text;
    std::optional<VisionEncoder> vision;
    int32_t n_threads = 1;
    std::unique_ptr<const PackedWeights> packed;  // nullptr: all matrices are read from the file
    std::unique_ptr<const ProbeFile> probes;      // nullptr: the model has none

    /// The probes, and the factors of the output projections, which are made when they are first asked for.
    /// Thread-safe.
    [[nodiscard]] ProbeSource probe_source() const;

  private:
    mutable std::once_flag factors_made_;
    mutable std::unique_ptr<const OutputFactors> factors_;
};

}  // namespace kvsieve
