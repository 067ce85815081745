// SPDX-License-Identifier: MIT
#include "policy/registry.h"

#include <string>
#include <vector>

#include "kvsieve/error.h"
#include "policy/composition.h"
#include "policy/number.h"

namespace kvsieve {

// One declaration and one row per file of methods/, in the order of the documentation.
MethodFile full_file();
MethodFile random_file();
MethodFile streaming_llm_file();
MethodFile h2o_file();
MethodFile snapkv_file();
MethodFile pyramidkv_file();
MethodFile adakv_file();
MethodFile elastic_cache_file();
MethodFile uniform_prefix_file();
MethodFile prefixkv_file();
MethodFile aircache_file();
MethodFile mixkv_file();
MethodFile tova_file();
MethodFile knorm_file();
MethodFile keydiff_file();
MethodFile expected_attention_file();
MethodFile cake_file();
MethodFile lava_file();
MethodFile vl_cache_file();
MethodFile fastv_file();
MethodFile sieve_file();

std::span<const MethodFile> method_files() {
    static const std::vector<MethodFile> files = {
        full_file(),           random_file(),    streaming_llm_file(), h2o_file(),
        snapkv_file(),         pyramidkv_file(), adakv_file(),         elastic_cache_file(),
        uniform_prefix_file(), prefixkv_file(),  aircache_file(),      mixkv_file(),
        tova_file(),           knorm_file(),     keydiff_file(),       expected_attention_file(),
        cake_file(),           lava_file(),      vl_cache_file(),      fastv_file(),
        sieve_file(),
    };
    return files;
}

std::span<const MethodInfo> methods() {
    static const std::vector<MethodInfo> table = [] {
        std::vector<MethodInfo> out;
        for (const MethodFile & file : method_files()) {
            if (file.method) {
                out.push_back(published_info(*file.method));
            }
        }
        return out;
    }();
    return table;
}

const MethodInfo & method_info(std::string_view name) {
    if (const size_t plus = name.find('+'); plus != std::string_view::npos) {
        return composition_info(name.substr(0, plus), name.substr(plus + 1));
    }
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
