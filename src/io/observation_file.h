// SPDX-License-Identifier: MIT
// Dumped observations (obs.npz): what a method saw of a prompt, without the model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string_view>

#include "kvsieve/policy.h"

namespace kvsieve {

/// The observations of one prompt from an .npz file. Holds the arrays that the traits ask for; immutable.
class ObservationFile {
  public:
    /// Reads what `wanted` asks for. Absent sums are made from what is there: `importance` from `colsum`, both from
    /// `attention`; attention rows come from `rows`, and from `attention` where `rows` does not reach.
    /// Throws Error{bad_input} that names the file and the array: absent, damaged, of another type or shape, not
    /// finite, negative where attention cannot be, or looking ahead of its query.
    ObservationFile(const std::filesystem::path & path, std::string_view method, const Traits & wanted);
    ~ObservationFile();
    ObservationFile(ObservationFile &&) noexcept;
    ObservationFile & operator=(ObservationFile &&) noexcept;

    [[nodiscard]] const PromptShape & prompt() const;
    [[nodiscard]] const LayerObservation & layer(int32_t il) const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

/// The plan that a method makes from a file.
[[nodiscard]] Plan plan_from_file(const Method & method, const ObservationFile & file);

}  // namespace kvsieve
