// SPDX-License-Identifier: MIT
#include "policy/params.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kvsieve/error.h"
#include "policy/number.h"

namespace kvsieve {
namespace {

[[noreturn]] void refuse(const std::string & sentence) {
    throw Error(ErrorCode::invalid_argument, sentence);
}

void check_keep(const MethodInfo & info, const MethodOptions & options) {
    const std::string name(info.name);
    if (!(options.keep > 0 && options.keep <= 1)) {
        refuse("keep is " + number_text(options.keep) + "; expected a number in (0, 1]");
    }
    if (info.keep_of.empty() && options.keep != 1) {
        refuse("method " + name + " takes no keep, it keeps everything; got keep " + number_text(options.keep));
    }
}

void check_profile(const MethodInfo & info, const MethodOptions & options) {
    if (!options.profile) {
        return;
    }
    const std::string name(info.name);
    if (!info.takes_profile) {
        refuse("method " + name + " takes no profile");
    }
    if (options.keep != 1) {
        refuse("keep and a profile exclude each other; got keep " + number_text(options.keep) + " beside a profile");
    }
    if (options.profile->method != info.name) {
        throw Error(ErrorCode::bad_input,
                    "the profile was made for method " + options.profile->method + "; expected " + name);
    }
    if (options.profile->forget.empty()) {
        throw Error(ErrorCode::bad_input, "the profile has no layers; expected one forgotten fraction per layer");
    }
    for (size_t il = 0; il < options.profile->forget.size(); ++il) {
        const double f = options.profile->forget[il];
        if (!(f >= 0 && f < 1)) {
            throw Error(ErrorCode::bad_input, "the profile forgets " + number_text(f) + " in layer " +
                                                  std::to_string(il) + "; expected a number in [0, 1)");
        }
    }
}

double bind_number(const ParamSpec & spec, const std::string & text, const std::string & what) {
    const auto value = parse_number(text);
    if (!value || *value < spec.min || *value > spec.max || (spec.integer && *value != std::floor(*value)) ||
        (spec.odd && std::fmod(*value, 2) != 1)) {
        refuse(what + " is '" + text + "'; expected " +
               (spec.odd       ? "an odd integer"
                : spec.integer ? "an integer"
                               : "a number") +
               " from " + number_text(spec.min) + " to " + number_text(spec.max));
    }
    return *value;
}

}  // namespace

BoundParams::BoundParams(const MethodInfo & info, const MethodOptions & options)
    : keep_(options.keep), seed_(options.seed), profile_(options.profile) {
    check_keep(info, options);
    check_profile(info, options);
    const std::string method(info.name);
    std::vector<std::string> names;
    for (const ParamSpec & spec : info.params) {
        names.push_back(spec.name);
    }
    for (const auto & [name, text] : options.params) {
        if (std::find(names.begin(), names.end(), name) == names.end()) {
            refuse("method " + method + " has no parameter '" + name + "'; " +
                   (names.empty() ? "it takes none" : "expected one of " + word_list(names)));
        }
    }
    for (const ParamSpec & spec : info.params) {
        values_[spec.name] = spec.def;
        const auto given = options.params.find(spec.name);
        const std::string what = "parameter " + spec.name + " of method " + method;
        if (!spec.choices.empty()) {
            const auto & text = given != options.params.end() ? given->second : std::get<std::string>(spec.def);
            const auto found = std::find(spec.choices.begin(), spec.choices.end(), text);
            if (found == spec.choices.end()) {
                refuse(what + " is '" + text + "'; expected one of " + word_list(spec.choices));
            }
            values_[spec.name] = text;
            choices_[spec.name] = static_cast<size_t>(found - spec.choices.begin());
        } else if (given != options.params.end()) {
            values_[spec.name] = bind_number(spec, given->second, what);
        }
    }
}

bool can_choose_row_types(const MethodInfo & info) {
    return std::any_of(info.params.begin(), info.params.end(),
                       [](const ParamSpec & spec) { return spec.name == kPrecision; });
}

}  // namespace kvsieve
