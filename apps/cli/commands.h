// SPDX-License-Identifier: MIT
// The subcommands of the program: each function adds one to the application, with its options and its action.
#pragma once

#include <CLI/CLI.hpp>

void add_methods_command(CLI::App & app);
void add_plan_command(CLI::App & app);
void add_run_command(CLI::App & app);
void add_observe_command(CLI::App & app);
void add_profile_command(CLI::App & app);
void add_eval_command(CLI::App & app);
void add_report_command(CLI::App & app);
void add_bench_command(CLI::App & app);
void add_make_model_command(CLI::App & app);
