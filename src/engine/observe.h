// SPDX-License-Identifier: MIT
// What methods see of a prompt, as a file: kvsieve plan makes the run's own plans from it.
#pragma once

#include <filesystem>
#include <memory>

#include "kvsieve/engine.h"

namespace kvsieve {

/// Everything that the registry's methods with their default parameters look at.
[[nodiscard]] Traits all_observations();

/// Prefills the turn with everything kept and writes the arrays that `wanted` names (docs/methods.md has the format):
/// float32, exactly the values that a method would be given. Attention rows are those of the last `wanted.window`
/// tokens, or of the tokens behind the last visual one, where these are more. Layers are written as they come.
/// Returns the prompt. Throws what Session::feed() and the writing throw.
PromptShape write_observations(std::shared_ptr<const Model> model, const SessionOptions & options, const Turn & turn,
                               const Traits & wanted, const std::filesystem::path & path,
                               const Callbacks & callbacks = {});

}  // namespace kvsieve
