// SPDX-License-Identifier: MIT
#include <string>
#include <vector>

#include "kvsieve/error.h"
#include "policy/methods/methods.h"
#include "policy/number.h"
#include "policy/params.h"

namespace kvsieve {
namespace {

/// One row per method, in the order of the documentation.
std::vector<MethodInfo> make_table() {
    std::vector<MethodInfo> table = {
        full_info(),
        random_info(),
        prefixkv_info(),
        aircache_info(),
    };
    for (MethodInfo & info : table) {
        info.traits = info.make({})->traits();
    }
    return table;
}

}  // namespace

std::span<const MethodInfo> methods() {
    static const std::vector<MethodInfo> table = make_table();
    return table;
}

const MethodInfo & method_info(std::string_view name) {
    std::vector<std::string> names;
    for (const MethodInfo & info : methods()) {
        if (info.name == name) {
            return info;
        }
        names.emplace_back(info.name);
    }
    throw Error(ErrorCode::invalid_argument,
                "there is no method '" + std::string(name) + "'; expected one of " + word_list(names));
}

std::unique_ptr<Method> make_method(std::string_view name, const MethodOptions & options) {
    return method_info(name).make(options);
}

}  // namespace kvsieve
