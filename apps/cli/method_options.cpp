// SPDX-License-Identifier: MIT
#include "method_options.h"

#include "io/profile.h"
#include "kvsieve/error.h"
#include "policy/number.h"

using namespace kvsieve;

namespace {

[[noreturn]] void refuse(const std::string & sentence) {
    throw Error(ErrorCode::invalid_argument, sentence);
}

}  // namespace

void MethodArgs::add_to(CLI::App & app, bool method_required) {
    app.add_option("--method", method, "Compression method; 'kvsieve methods' lists them")
        ->type_name("NAME")
        ->required(method_required);
    app.add_option("--keep", keep, "Fraction of the KV rows that is kept, in (0, 1]")->type_name("R");
    app.add_option("--set", set, "A parameter of the method; may be repeated")
        ->type_name("NAME=VALUE")
        ->allow_extra_args(false);
    app.add_option("--profile", profile, "Offline budgets per layer, instead of --keep")->type_name("FILE");
    app.add_option("--seed", seed, "Seed of methods that choose at random")->type_name("N");
}

MethodChoice MethodArgs::resolve() const {
    const MethodInfo & info = method_info(method);
    MethodChoice choice{.method = method, .options = {}};
    MethodOptions & options = choice.options;
    if (!keep.empty()) {
        const auto value = parse_number(keep);
        if (!value) {
            refuse("--keep is '" + keep + "'; expected a number in (0, 1]");
        }
        options.keep = *value;
    }
    if (!profile.empty()) {
        if (!keep.empty()) {
            refuse("--keep and --profile exclude each other: a profile holds the budgets");
        }
        options.profile = read_profile(profile);
    } else if (keep.empty() && !info.keep_of.empty()) {
        refuse("method " + method + " needs --keep R in (0, 1]" + (info.takes_profile ? " or --profile FILE" : ""));
    }
    if (!seed.empty()) {
        const auto value = parse_unsigned(seed);
        if (!value) {
            refuse("--seed is '" + seed + "'; expected an integer of at least 0");
        }
        options.seed = *value;
    }
    for (const std::string & text : set) {
        const size_t at = text.find('=');
        if (at == std::string::npos || at == 0) {
            refuse("--set is '" + text + "'; expected NAME=VALUE");
        }
        if (!options.params.try_emplace(text.substr(0, at), text.substr(at + 1)).second) {
            refuse("--set names the parameter " + text.substr(0, at) + " twice");
        }
    }
    (void)make_method(choice.method, options);  // refuse what does not fit before any work begins
    return choice;
}
