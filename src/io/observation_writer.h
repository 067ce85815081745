// SPDX-License-Identifier: MIT
// Writing observations (obs.npz) while the layers come.
#pragma once

#include <filesystem>
#include <memory>

#include "kvsieve/policy.h"

namespace kvsieve {

/// Writes what the traits ask for, layer by layer, so that ObservationFile gives every method with such traits the same
/// numbers as the run's own observation, and the same plan. Memory: one block of attention rows. Not thread-safe.
class ObservationWriter {
  public:
    /// Throws Error{io} for a path that cannot be written.
    ObservationWriter(const std::filesystem::path & path, const PromptShape & prompt, const Traits & observed);
    ~ObservationWriter();

    /// One layer, in any order, each once. Attention rows are those of all `row_positions`, which must be the same in
    /// every layer and end with the last prompt token. Throws Error{bad_input} naming the array that is missing or of
    /// another size, Error{io} when the disk is full.
    void add(int32_t il, const LayerObservation & obs);
    /// Packs the file, which appears whole or not at all. Throws Error{invalid_argument} if a layer is missing.
    void finish();

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace kvsieve
