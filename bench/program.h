// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include "kvsieve/error.h"

namespace kvsieve {

/// The share of its rows that layer `il` keeps in measurements: layers differ as PrefixKV's do, the mean is `keep`.
[[nodiscard]] inline double layer_share(double keep, int32_t il, int32_t n_layer) {
    if (keep == 1.0 || il == n_layer - n_layer % 2) {
        return keep;
    }
    return keep * (il % 2 == 0 ? 1.5 : 0.5);
}

/// main() of the program `name`: what `run` throws becomes one line on stderr and the exit code.
template <typename Run>
int run_program(const char * name, int argc, char ** argv, Run && run) {
    try {
        return run(std::vector<std::string>{argv + 1, argv + argc});
    } catch (const Error & error) {
        std::cerr << name << ": " << error.what() << "\n";
        return exit_code(error.code());
    } catch (const std::exception & error) {
        std::cerr << name << ": " << error.what() << "\n";
        return 1;
    }
}

}  // namespace kvsieve
