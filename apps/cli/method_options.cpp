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
    method_required_ = method_required;
    method_option_ = app.add_option("--method", method,
                                    "Compression method; 'kvsieve methods' lists them. Without it: full, or sieve "
                                    "where less than everything is to be kept");
    method_option_->type_name("NAME");
    app.add_option("--scorer", scorer, "Instead of --method: what ranks the rows; see 'kvsieve methods --parts'")
        ->type_name("NAME");
    app.add_option("--allocator", allocator, "With --scorer: how many rows each layer keeps")->type_name("NAME");
    app.add_option("--scope", scope, "With --scorer: rows that compete, all or visual")->type_name("WORD");
    app.add_option("--granularity", granularity, "One set of rows per layer or per KV head, layer or head")
        ->type_name("WORD");
    app.add_option("--keep", keep, "Fraction of the KV rows that is kept, in (0, 1]")->type_name("R");
    app.add_option("--set", set, "A parameter of the method; may be repeated")
        ->type_name("NAME=VALUE")
        ->allow_extra_args(false);
    app.add_option("--profile", profile, "Offline budgets per layer, instead of --keep")->type_name("FILE");
    app.add_option("--seed", seed, "Seed of methods that choose at random")->type_name("N");
}

std::string MethodArgs::chosen_method() const {
    const bool named = method_option_ != nullptr && method_option_->count() > 0;
    if (scorer.empty() && allocator.empty()) {
        if (method_required_ && !named) {
            refuse("there is no method; give one with --method NAME, or --scorer NAME with --allocator NAME");
        }
        if (!scope.empty()) {
            refuse("--scope belongs to --scorer and --allocator; method " + method + " has a scope of its own");
        }
        // all of the cache needs no method; who asks for less gets the best one
        return !named && method == "full" && !keep.empty() ? "sieve" : method;
    }
    if (named) {
        refuse("--method and --scorer with --allocator exclude each other; give one of the two");
    }
    if (scorer.empty() || allocator.empty()) {
        refuse(std::string("--scorer and --allocator belong together; ") +
               (scorer.empty() ? "--scorer" : "--allocator") + " is missing");
    }
    return composition_name(scorer, allocator);
}

MethodChoice MethodArgs::resolve() const {
    const std::string name = chosen_method();
    const MethodInfo & info = method_info(name);
    MethodChoice choice{.method = name, .options = {}};
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
        refuse("method " + name + " needs --keep R in (0, 1]" + (info.takes_profile ? " or --profile FILE" : ""));
    }
    if (!seed.empty()) {
        const auto value = parse_unsigned(seed);
        if (!value) {
            refuse("--seed is '" + seed + "'; expected an integer of at least 0");
        }
        options.seed = *value;
    }
    if (!scope.empty()) {
        options.params["scope"] = scope;
    }
    if (!granularity.empty()) {
        options.params["granularity"] = granularity;
    }
    for (const std::string & text : set) {
        const size_t at = text.find('=');
        if (at == std::string::npos || at == 0) {
            refuse("--set is '" + text + "'; expected NAME=VALUE");
        }
        if (!options.params.try_emplace(text.substr(0, at), text.substr(at + 1)).second) {
            refuse("the parameter " + text.substr(0, at) + " is given twice");
        }
    }
    (void)make_method(choice.method, options);  // refuse what does not fit before any work begins
    return choice;
}
