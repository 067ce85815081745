// SPDX-License-Identifier: MIT
#include <string>

#include "kvsieve/error.h"
#include "kvsieve/kv_cache.h"

namespace kvsieve {

std::string_view kv_type_name(KvType type) noexcept {
    switch (type) {
        case KvType::f16:
            return "f16";
        case KvType::q8_0:
            return "q8_0";
        case KvType::q4_0:
            return "q4_0";
    }
    return "unknown";
}

KvType parse_kv_type(std::string_view name) {
    for (const KvType type : {KvType::f16, KvType::q8_0, KvType::q4_0}) {
        if (name == kv_type_name(type)) {
            return type;
        }
    }
    throw Error(ErrorCode::invalid_argument,
                "KV type '" + std::string(name) + "' does not exist; expected f16, q8_0 or q4_0");
}

}  // namespace kvsieve
