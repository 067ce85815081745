// SPDX-License-Identifier: MIT
#include <string>

#include "kvsieve/error.h"
#include "policy/scorer.h"

namespace kvsieve {

std::span<const float> observed(std::span<const float> array, size_t n_expected, std::string_view name, int32_t il) {
    if (array.size() != n_expected) {
        const std::string what = "the observation of layer " + std::to_string(il);
        throw Error(ErrorCode::bad_input, array.empty()
                                              ? what + " has no array " + std::string(name) + ", which the method needs"
                                              : what + " has " + std::to_string(array.size()) + " values in array " +
                                                    std::string(name) + "; expected " + std::to_string(n_expected));
    }
    return array;
}

}  // namespace kvsieve
