// SPDX-License-Identifier: MIT
#include "cache_args.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "kvsieve/decode_policy.h"
#include "kvsieve/error.h"
#include "policy/number.h"
#include "policy/params.h"
#include "usage.h"

using namespace kvsieve;

namespace {

[[noreturn]] void refuse(const std::string & sentence) {
    throw Error(ErrorCode::invalid_argument, sentence);
}

/// "20%", "64MiB", "1.5 GB", "4096": a share or bytes.
void read_budget(const std::string & text, SessionOptions & options) {
    constexpr std::array<std::pair<std::string_view, double>, 9> kUnits = {{{"%", 0.0},
                                                                            {"KiB", 0x1p10},
                                                                            {"MiB", 0x1p20},
                                                                            {"GiB", 0x1p30},
                                                                            {"kB", 1e3},
                                                                            {"KB", 1e3},
                                                                            {"MB", 1e6},
                                                                            {"GB", 1e9},
                                                                            {"B", 1.0}}};
    const auto wrong = [&] {
        refuse("--kv-budget is '" + text + "'; expected bytes such as 64MiB, or a share of the full cache such as 20%");
    };
    std::string number = text;
    double unit = 1.0;
    for (const auto & [name, factor] : kUnits) {
        if (number.ends_with(name)) {
            number.resize(number.size() - name.size());
            unit = factor;
            break;
        }
    }
    while (number.ends_with(' ')) {
        number.pop_back();
    }
    const auto value = parse_number(number);
    if (!value || !std::isfinite(*value) || *value <= 0.0 || *value * unit > 0x1p62) {
        wrong();
    }
    if (unit == 0.0) {
        if (*value > 100.0) {
            wrong();
        }
        options.kv_share = *value / 100.0;
    } else {
        options.kv_bytes = static_cast<uint64_t>(*value * unit);
        if (options.kv_bytes == 0) {
            wrong();
        }
    }
}

}  // namespace

void CacheArgs::add_to(CLI::App & app, MethodArgs & method) {
    const auto group = [](CLI::Option * option) { option->group("KV cache"); };
    const size_t n_before = app.get_options().size();
    method.add_to(app);
    app.get_option("--method")->default_str(method.method);
    const std::vector<CLI::Option *> all = app.get_options();
    std::for_each(all.begin() + static_cast<std::ptrdiff_t>(n_before), all.end(), group);
    group(add_choice(app, "--kv-type", kv_type, {"f16", "q8_0", "q4_0", "auto"},
                     "Type of the cached rows; auto: method sieve chooses one for each KV head"));
    group(add_choice(app, "--kv-rot", kv_rot, {"on", "off"}, "Rotate quantised rows"));
    group(app.add_option("--kv-tokens", kv_tokens,
                         "Instead of --keep: at most so many rows of the prompt per layer, on average")
              ->type_name("N"));
    group(app.add_option("--kv-budget", kv_budget,
                         "Instead of --keep: at most so many bytes (64MiB), or of the full f16 cache (20%)")
              ->type_name("SIZE"));
    std::vector<std::string> policies;
    for (const std::string_view name : decode_policies()) {
        policies.emplace_back(name);
    }
    group(add_choice(app, "--decode-policy", decode_policy, std::move(policies), "Which rows leave while decoding"));
    group(add_integer(app, "--decode-cap", decode_cap, 0, INT32_MAX,
                      "Most rows of a layer or head under a decode policy"));
    group(add_choice(app, "--attention", attention, {"kernel", "ggml"},
                     "Attention of the prompt and of each new token: kvsieve's own kernels, or ggml's operations"));
}

MethodChoice CacheArgs::resolve(const MethodArgs & method, SessionOptions & options) const {
    MethodArgs args = method;
    const bool capped = !kv_tokens.empty() || !kv_budget.empty();
    if (capped && !method.keep.empty()) {
        refuse("--keep and " + std::string(kv_tokens.empty() ? "--kv-budget" : "--kv-tokens") +
               " exclude each other: the cap says how much is kept");
    }
    if (!kv_tokens.empty()) {
        const auto value = parse_unsigned(kv_tokens);
        if (!value || *value < 1 || *value > INT32_MAX) {
            refuse("--kv-tokens is '" + kv_tokens + "'; expected a whole number from 1 to " +
                   std::to_string(INT32_MAX));
        }
        options.kv_tokens = static_cast<int64_t>(*value);
    }
    if (!kv_budget.empty()) {
        read_budget(kv_budget, options);
    }
    if (capped && method.profile.empty()) {
        args.keep = "1";  // the session lowers it
    }
    const bool chooses = kv_type == "auto";
    if (chooses) {
        const std::string name = args.resolve().method;
        if (!can_choose_row_types(method_info(name))) {
            refuse(
                "--kv-type auto needs a method that chooses row types (sieve), and less than everything to keep; "
                "method " +
                name + " does not choose");
        }
        args.set.push_back(std::string(kPrecision) + "=auto");
    }
    const MethodChoice choice = args.resolve();
    options.method = choice.method;
    options.method_options = choice.options;
    options.kv_type = chooses ? KvType::f16 : parse_kv_type(kv_type);
    options.kv_rot = kv_rot == "on";
    options.decode_policy = decode_policy;
    options.decode_cap = decode_cap;
    options.attention_kernel = attention == "kernel";
    static_cast<void>(make_decode_policy(decode_policy, decode_cap, 1, 1));  // refused before a file is opened
    return choice;
}
