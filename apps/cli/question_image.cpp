// SPDX-License-Identifier: MIT
#include "question_image.h"

#include <fmt/format.h>

#include "kvsieve/error.h"

kvsieve::Image load_question_image(const std::filesystem::path & path) {
    constexpr int32_t kMinSide = 2;
    kvsieve::Image image = kvsieve::load_image(path);
    if (image.width < kMinSide || image.height < kMinSide) {
        throw kvsieve::Error(kvsieve::ErrorCode::bad_input,
                             fmt::format("{} has {} x {} pixels, expected at least {} x {}", path.string(), image.width,
                                         image.height, kMinSide, kMinSide));
    }
    return image;
}
