// SPDX-License-Identifier: MIT
// kvsieve report: results of an evaluation as an HTML page, JSON, CSV or a table.
#include <memory>
#include <string>
#include <vector>

#include "commands.h"
#include "eval/aggregate.h"
#include "eval/report/html.h"
#include "eval/results.h"
#include "io/atomic_file.h"
#include "kvsieve/error.h"
#include "output.h"
#include "print.h"

using namespace kvsieve;

namespace {

struct ReportArgs {
    std::vector<std::string> files;
    std::string out;
    bool json = false, csv = false;
};

void run_report(const ReportArgs & args) {
    if (args.json && args.csv) {
        throw Error(ErrorCode::invalid_argument, "--json and --csv exclude each other");
    }
    if (!args.out.empty()) {
        check_writable(args.out);
    }
    const Results results = read_results(std::vector<std::filesystem::path>(args.files.begin(), args.files.end()));
    if (!args.out.empty()) {
        atomic_write_file(args.out, report_html(results));
    }
    if (args.json || args.csv || args.out.empty()) {
        const std::vector<ReportRow> rows = aggregate(results);
        print_out(args.json ? rows_as_json(rows) : args.csv ? rows_as_csv(rows) : rows_as_text(rows));
    }
}

}  // namespace

void add_report_command(CLI::App & app) {
    CLI::App * const command = app.add_subcommand("report", "Draw and tabulate the results of an evaluation");
    const auto args = std::make_shared<ReportArgs>();
    command->add_option("results", args->files, "Results of one run: files of kvsieve eval, in any order")
        ->type_name("FILE...")
        ->required();
    command->add_option("-o,--output", args->out, "Write the report as one self-contained HTML file")
        ->type_name("FILE");
    command->add_flag("--json", args->json, "Print the rows as a JSON array");
    command->add_flag("--csv", args->csv, "Print the rows as comma-separated values");
    command->callback([args] { run_report(*args); });
}
