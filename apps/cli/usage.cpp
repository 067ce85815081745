// SPDX-License-Identifier: MIT
#include "usage.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>
#include <vector>

#include "eval/edit_distance.h"
#include "kvsieve/error.h"

namespace {

[[noreturn]] void refuse(const std::string & sentence) {
    throw kvsieve::Error(kvsieve::ErrorCode::invalid_argument, sentence);
}

/// The name nearest to what was typed, empty where none is near.
std::string nearest(std::string_view typed, const std::vector<std::string> & names) {
    std::string best;
    size_t best_distance = std::max<size_t>(2, typed.size() / 3) + 1;
    for (const std::string & name : names) {
        const bool longer = typed.size() >= 5 && name.starts_with(typed);
        const size_t distance = longer ? 0 : kvsieve::edit_distance<char>(typed, name);
        if (distance < best_distance) {
            best_distance = distance;
            best = name;
        }
    }
    return best;
}

std::vector<std::string> option_names(const CLI::App & app) {
    std::vector<std::string> names;
    for (const CLI::Option * option : app.get_options()) {
        for (const std::string & name : option->get_lnames()) {
            names.push_back("--" + name);
        }
    }
    return names;
}

std::vector<std::string> commands(const CLI::App & app) {
    std::vector<std::string> names;
    for (const CLI::App * command : app.get_subcommands([](const CLI::App *) { return true; })) {
        names.push_back(command->get_name());
    }
    return names;
}

std::string unexpected_sentence(const CLI::App & app, const CLI::App & active, std::string word) {
    const bool top = &active == &app;
    const std::string help = top ? "kvsieve --help" : "kvsieve " + active.get_name() + " --help";
    word = word.substr(0, word.find('='));
    std::string sentence;
    std::string guess;
    if (word.starts_with('-')) {
        sentence = fmt::format("unknown option '{}'", word);
        guess = nearest(word, option_names(active));
    } else if (top) {
        sentence = fmt::format("unknown command '{}'", word);
        guess = nearest(word, commands(app));
    } else {
        sentence = fmt::format("'{}' was not expected: kvsieve {} takes no such argument", word, active.get_name());
    }
    if (!guess.empty()) {
        sentence += fmt::format(", did you mean '{}'?", guess);
    }
    return sentence + fmt::format(" (see {})", help);
}

/// "-n,--n-predict" -> "--n-predict"
std::string long_name(const std::string & names) {
    const size_t at = names.find("--");
    return at == std::string::npos ? names : names.substr(at, names.find(',', at) - at);
}

template <typename T>
bool parse_whole(const std::string & text, T & value) {
    const char * end = text.data() + text.size();
    const char * begin = text.starts_with('+') ? text.data() + 1 : text.data();
    const auto [stop, error] = std::from_chars(begin, end, value);
    return error == std::errc() && stop == end;
}

class HelpFormatter : public CLI::Formatter {
  public:
    HelpFormatter() {
        column_width(30);
        label("REQUIRED", "(required)");
    }
    std::string make_option_opts(const CLI::Option * option) const override {
        std::string text;
        if (option->get_type_size() != 0 && !option->get_type_name().empty()) {
            text = " " + option->get_type_name();
        }
        return text;
    }
    std::string make_option_desc(const CLI::Option * option) const override {
        std::string text = option->get_description();
        if (!option->get_default_str().empty()) {
            text += " [" + option->get_default_str() + "]";
        }
        return text;
    }
};

}  // namespace

std::shared_ptr<CLI::FormatterBase> help_formatter() {
    return std::make_shared<HelpFormatter>();
}

std::string command_names(const CLI::App & app) {
    return fmt::format("{}", fmt::join(commands(app), ", "));
}

std::string usage_sentence(const CLI::App & app, const CLI::ParseError & error) {
    const std::vector<CLI::App *> used = app.get_subcommands();
    const CLI::App & active = used.empty() ? app : *used.front();
    const std::vector<std::string> extras = app.remaining(true);
    if (dynamic_cast<const CLI::ExtrasError *>(&error) != nullptr && !extras.empty()) {
        return unexpected_sentence(app, active, extras.front());
    }
    std::string what = error.what();
    if (dynamic_cast<const CLI::ArgumentMismatch *>(&error) != nullptr) {
        const std::string name = what.substr(0, what.find(':'));
        if (what.find("At Most") != std::string::npos) {
            what = name + " was given more than once";
        } else if (what.find("required") != std::string::npos) {
            what = name + " needs a value";
        }
    }
    return fmt::format("{} (see kvsieve{}{} --help)", what, used.empty() ? "" : " ",
                       used.empty() ? "" : active.get_name());
}

CLI::Option * add_integer(CLI::App & app, const std::string & names, int32_t & target, int64_t min, int64_t max,
                          const std::string & help) {
    const auto set = [&target, name = long_name(names), min, max](const std::string & text) {
        int64_t value = 0;
        if (!parse_whole(text, value) || value < min || value > max) {
            refuse(fmt::format("{} takes a whole number from {} to {}, not '{}'", name, min, max, text));
        }
        target = static_cast<int32_t>(value);
    };
    return app.add_option_function<std::string>(names, set, help)->type_name("N")->default_str(std::to_string(target));
}

CLI::Option * add_number(CLI::App & app, const std::string & names, float & target, double min, double max,
                         const std::string & help) {
    const auto set = [&target, name = long_name(names), min, max](const std::string & text) {
        double value = 0.0;
        if (!parse_whole(text, value) || !std::isfinite(value) || value < min || value > max) {
            refuse(fmt::format("{} takes a number from {} to {}, not '{}'", name, min, max, text));
        }
        target = static_cast<float>(value);
    };
    return app.add_option_function<std::string>(names, set, help)
        ->type_name("X")
        ->default_str(fmt::format("{}", target));
}

CLI::Option * add_choice(CLI::App & app, const std::string & names, std::string & target,
                         std::vector<std::string> choices, const std::string & help) {
    const std::string list = fmt::format("{}", fmt::join(choices, ", "));
    const auto set = [&target, name = long_name(names), choices = std::move(choices), list](const std::string & text) {
        if (std::find(choices.begin(), choices.end(), text) == choices.end()) {
            refuse(fmt::format("{} must be one of {}, not '{}'", name, list, text));
        }
        target = text;
    };
    return app.add_option_function<std::string>(names, set, help + ": " + list)->type_name("WORD")->default_str(target);
}
