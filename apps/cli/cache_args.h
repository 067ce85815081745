// SPDX-License-Identifier: MIT
// The options of the KV cache beside the method: row type, caps on the rows, decode policy, attention.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "kvsieve/engine.h"
#include "method_options.h"

struct CacheArgs {
    std::string kv_type = "f16", kv_rot = "on";
    std::string kv_tokens, kv_budget;  ///< as typed; empty: not given
    std::string decode_policy = "default";
    int32_t decode_cap = 0;
    std::string attention = "kernel";

    /// With the options of the method, in one group of the help.
    void add_to(CLI::App & app, MethodArgs & method);
    /// Resolves the method too: with a cap it needs no --keep, and takes none. Throws kvsieve::Error.
    [[nodiscard]] MethodChoice resolve(const MethodArgs & method, kvsieve::SessionOptions & options) const;
};
