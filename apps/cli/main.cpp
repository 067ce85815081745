// SPDX-License-Identifier: MIT
#include <cstdio>
#include <exception>
#include <new>
#include <string>

#include "commands.h"
#include "kvsieve/error.h"
#include "kvsieve/log.h"
#include "policy/process_memory.h"
#include "usage.h"
#include "version.h"

namespace {

/// One line on stderr, whatever is in the message.
void print_error(std::string message) {
    for (char & c : message) {
        if (c == '\n' || c == '\r' || c == '\t') {
            c = ' ';
        }
    }
    while (!message.empty() && message.back() == ' ') {
        message.pop_back();
    }
    std::fprintf(stderr, "kvsieve: %s\n", message.c_str());
}

int run_program(int argc, char ** argv) {
    CLI::App app("Vision-language models from GGUF files with a compressed KV cache.", "kvsieve");
    app.set_version_flag("--version", std::string("kvsieve ") + KVSIEVE_VERSION, "Show the version");
    app.set_help_flag("-h,--help", "Show this help");
    app.footer(
        "`kvsieve COMMAND --help` explains a command.\n"
        "Exit codes: 0 good, 1 a failure at run time, 2 bad usage or bad input.");
    app.formatter(help_formatter());
    add_run_command(app);
    add_methods_command(app);
    add_plan_command(app);
    add_observe_command(app);
    add_profile_command(app);
    add_eval_command(app);
    add_report_command(app);
    add_bench_command(app);
    add_make_model_command(app);
    try {
        app.parse(argc, argv);
        if (app.get_subcommands().empty()) {
            throw kvsieve::Error(kvsieve::ErrorCode::invalid_argument,
                                 "no command was given; known are " + command_names(app) + " (see kvsieve --help)");
        }
    } catch (const CLI::Success & e) {  // help or version
        return app.exit(e);
    } catch (const CLI::ParseError & e) {
        print_error(usage_sentence(app, e));
        return 2;
    }
    return 0;
}

}  // namespace

int main(int argc, char ** argv) {
    kvsieve::install_abort_handler();
    kvsieve::give_back_large_buffers();
    try {
        return run_program(argc, argv);
    } catch (const kvsieve::Error & e) {
        print_error(e.what());
        return kvsieve::exit_code(e.code());
    } catch (const std::bad_alloc &) {
        print_error("there is not enough memory");
    } catch (const std::exception & e) {
        print_error(std::string("unexpected failure: ") + e.what());
    }
    return 1;
}
