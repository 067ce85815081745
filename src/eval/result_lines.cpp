// SPDX-License-Identifier: MIT
#include "eval/result_lines.h"

#include <cmath>

namespace kvsieve {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr int kFormat = 1;

[[noreturn]] void refuse(const std::string & why) {
    throw LineError{why};
}

const json & need(const json & object, const char * key) {
    const auto found = object.find(key);
    if (found == object.end()) {
        refuse(std::string(key) + " is missing");
    }
    return *found;
}

std::string text_in(const json & object, const char * key) {
    const json & value = need(object, key);
    if (!value.is_string()) {
        refuse(std::string(key) + " is " + value.dump() + "; expected a string");
    }
    return value.get<std::string>();
}

double number_of(const json & value, const char * key) {
    if (!value.is_number() || !std::isfinite(value.get<double>())) {
        refuse(std::string(key) + " is " + value.dump() + "; expected a number");
    }
    return value.get<double>();
}

int64_t count_of(const json & value, const char * key) {
    if (!value.is_number_integer() || value < 0) {
        refuse(std::string(key) + " is " + value.dump() + "; expected a whole number of at least 0");
    }
    return value.get<int64_t>();
}

template <typename Item>
auto list_of(const json & value, const char * key, Item item) {
    if (!value.is_array()) {
        refuse(std::string(key) + " is " + value.dump() + "; expected a list");
    }
    std::vector<decltype(item(value, key))> out;
    for (const json & entry : value) {
        out.push_back(item(entry, key));
    }
    return out;
}

std::vector<double> numbers_of(const json & value, const char * key) {
    return list_of(value, key, number_of);
}

/// Sets `target` where the key is there.
template <typename Target, typename Item>
void read_optional(const json & object, const char * key, Target & target, Item item) {
    if (const auto found = object.find(key); found != object.end()) {
        target = item(*found, key);
    }
}

std::string text_of(const json & value, const char * key) {
    if (!value.is_string()) {
        refuse(std::string(key) + " is " + value.dump() + "; expected a string");
    }
    return value.get<std::string>();
}

CellKey key_from(const json & object) {
    CellKey key{.method = text_in(object, "method"), .kv_type = text_in(object, "kv_type")};
    if (const auto params = object.find("params"); params != object.end()) {
        if (!params->is_object()) {
            refuse("params is " + params->dump() + "; expected an object");
        }
        for (const auto & [name, value] : params->items()) {
            key.params[name] = text_of(value, "params");
        }
    }
    if (object.contains("budget")) {
        key.budget = number_of(object["budget"], "budget");
    } else {
        key.keep = number_of(need(object, "keep"), "keep");
    }
    return key;
}

void need_object(const json & object) {
    if (!object.is_object()) {
        refuse(std::string("it is ") + object.type_name() + "; expected a JSON object");
    }
}

/// Nothing where it is empty.
template <class Field>
void put(ordered_json & out, const char * name, const Field & field) {
    if (!field.empty()) {
        out[name] = field;
    }
}

}  // namespace

ordered_json to_json(const CellKey & key) {
    ordered_json out;
    out["method"] = key.method;
    put(out, "params", key.params);
    if (key.keep) {
        out["keep"] = *key.keep;
    }
    if (key.budget) {
        out["budget"] = *key.budget;
    }
    out["kv_type"] = key.kv_type;
    return out;
}

ordered_json to_json(const ResultsHeader & header) {
    ordered_json out = {{kHeaderKey, kFormat},
                        {"version", header.version},
                        {"command", header.command},
                        {"model", header.model},
                        {"model_fingerprint", header.model_fingerprint},
                        {"data", header.data},
                        {"data_sha256", header.data_sha256},
                        {"n_samples", header.n_samples},
                        {"n_layer", header.n_layer},
                        {"n_head_kv", header.n_head_kv},
                        {"metrics", header.metrics}};
    auto & grid = out["grid"] = ordered_json::array();
    for (const CellKey & key : header.grid) {
        grid.push_back(to_json(key));
    }
    return out;
}

ordered_json to_json(const CellResult & result) {
    ordered_json out = {{kCellKey, result.sample}, {"group", result.group}};
    out.update(to_json(result.key));
    out["keep"] = result.keep;
    if (!result.error.empty()) {
        out["error"] = result.error;
        return out;
    }
    out["n_prompt"] = result.n_prompt;
    out["kv_bytes"] = result.kv_bytes;
    out["kv_bytes_full"] = result.kv_bytes_full;
    if (result.n_tokens > 0) {
        out["n_tokens"] = result.n_tokens;
        out["nll"] = result.nll;
    }
    for (const auto & [name, value] : result.metrics) {
        out[name] = value;
    }
    if (result.n_next > 0) {
        out["n_next"] = result.n_next;
    }
    put(out, "text", result.text);
    put(out, "layer_rows", result.layer_rows);
    put(out, "strength", result.strength);
    put(out, "skewness", result.skewness);
    put(out, "token_layers", result.token_layers);
    return out;
}

ordered_json to_json(const SampleFacts & facts) {
    ordered_json out = {{kFactsKey, facts.sample}};
    put(out, "gini", facts.gini);
    put(out, "lorenz", facts.lorenz);
    if (!facts.image.empty()) {
        out["image"] = facts.image;
        out["nx"] = facts.nx;
        out["ny"] = facts.ny;
    }
    return out;
}

std::string line_of(const ordered_json & object) {
    return object.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

ResultsHeader header_from(const json & object) {
    if (const json & format = need(object, kHeaderKey); format != kFormat) {
        refuse("the format is " + format.dump() + "; expected " + std::to_string(kFormat));
    }
    ResultsHeader header{
        .version = text_in(object, "version"),
        .command = text_in(object, "command"),
        .model = text_in(object, "model"),
        .model_fingerprint = text_in(object, "model_fingerprint"),
        .data = text_in(object, "data"),
        .data_sha256 = text_in(object, "data_sha256"),
        .n_samples = count_of(need(object, "n_samples"), "n_samples"),
        .n_layer = static_cast<int32_t>(count_of(need(object, "n_layer"), "n_layer")),
        .n_head_kv = static_cast<int32_t>(count_of(need(object, "n_head_kv"), "n_head_kv")),
        .metrics = list_of(need(object, "metrics"), "metrics", text_of),
        .grid = list_of(need(object, "grid"), "grid",
                        [](const json & entry, const char *) {
                            need_object(entry);
                            return key_from(entry);
                        }),
    };
    if (header.grid.empty()) {
        refuse("the grid is empty");
    }
    return header;
}

CellResult cell_from(const json & object) {
    CellResult result{.sample = text_in(object, kCellKey), .group = text_in(object, "group"), .key = key_from(object)};
    result.keep = number_of(need(object, "keep"), "keep");
    if (object.contains("error")) {
        result.error = text_in(object, "error");
        return result;
    }
    result.n_prompt = count_of(need(object, "n_prompt"), "n_prompt");
    result.kv_bytes = static_cast<uint64_t>(count_of(need(object, "kv_bytes"), "kv_bytes"));
    result.kv_bytes_full = static_cast<uint64_t>(count_of(need(object, "kv_bytes_full"), "kv_bytes_full"));
    read_optional(object, "n_tokens", result.n_tokens, count_of);
    if (result.n_tokens > 0) {
        result.nll = number_of(need(object, "nll"), "nll");
    }
    for (const char * const name : kMeanMetrics) {
        if (object.contains(name)) {
            result.metrics[name] = number_of(object[name], name);
        }
    }
    read_optional(object, "n_next", result.n_next, count_of);
    if (result.metrics.contains("exact_match_next") && result.n_next == 0) {
        refuse("n_next is missing beside exact_match_next");
    }
    read_optional(object, "text", result.text, text_of);
    read_optional(object, "layer_rows", result.layer_rows,
                  [](const json & value, const char * key) { return list_of(value, key, count_of); });
    read_optional(object, "strength", result.strength, numbers_of);
    read_optional(object, "skewness", result.skewness, numbers_of);
    read_optional(object, "token_layers", result.token_layers, numbers_of);
    return result;
}

SampleFacts facts_from(const json & object) {
    SampleFacts facts{.sample = text_in(object, kFactsKey)};
    read_optional(object, "gini", facts.gini, numbers_of);
    read_optional(object, "lorenz", facts.lorenz,
                  [](const json & value, const char * key) { return list_of(value, key, numbers_of); });
    if (object.contains("image")) {
        facts.image = text_in(object, "image");
        facts.nx = static_cast<int32_t>(count_of(need(object, "nx"), "nx"));
        facts.ny = static_cast<int32_t>(count_of(need(object, "ny"), "ny"));
        if (!facts.image.starts_with("data:image/")) {
            refuse("image is no data: URI of an image");
        }
    }
    return facts;
}

}  // namespace kvsieve
