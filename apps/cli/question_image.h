// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>

#include "vision/image.h"

/// load_image(), and Error{bad_input} for a picture that is thinner than two pixels: it can show nothing.
[[nodiscard]] kvsieve::Image load_question_image(const std::filesystem::path & path);
