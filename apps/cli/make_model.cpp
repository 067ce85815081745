// SPDX-License-Identifier: MIT
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <system_error>

#include "commands.h"
#include "format.h"
#include "gguf/model_writer.h"
#include "interrupt.h"
#include "io/atomic_file.h"
#include "kvsieve/error.h"
#include "output.h"
#include "terminal.h"
#include "usage.h"

namespace {

namespace fs = std::filesystem;

struct MakeModelOptions {
    std::string out;
    std::string type = "f16";
    std::string rope_scaling = "none";
    int32_t seed = 0;
    kvsieve::ModelShape shape;
};

constexpr int32_t kNotGiven = -1;

/// What follows from the rest of the shape where it was not given.
void complete(kvsieve::ModelShape & shape) {
    if (shape.n_head_kv == kNotGiven) {
        shape.n_head_kv = shape.n_head;
    }
    if (shape.n_ff == kNotGiven) {
        shape.n_ff = static_cast<int32_t>(std::min<int64_t>(int64_t{4} * shape.n_embd, INT32_MAX));
    }
    if (shape.head_dim == kNotGiven) {
        if (shape.n_head <= 0 || shape.n_embd % shape.n_head != 0) {
            throw kvsieve::Error(kvsieve::ErrorCode::invalid_argument,
                                 fmt::format("the size of a head is to be named with --head-dim, because the width {} "
                                             "is no multiple of {} heads",
                                             shape.n_embd, shape.n_head));
        }
        shape.head_dim = shape.n_embd / shape.n_head;
    }
}

/// Throws Error{io} when the disk is full before anything is computed.
void check_space(const fs::path & path, uint64_t bytes) {
    std::error_code ec;
    const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
    const fs::space_info space = fs::space(folder, ec);
    if (!ec && space.available < bytes) {
        throw kvsieve::Error(kvsieve::ErrorCode::io,
                             fmt::format("cannot write {}: the model takes {}, but only {} are free there",
                                         path.string(), format_bytes(bytes), format_bytes(space.available)));
    }
}

void write_model(const fs::path & out, const kvsieve::ModelShape & shape, Progress & progress) {
    const InterruptGuard interrupts;
    kvsieve::atomic_write_file(out, [&](const fs::path & temporary) {
        const std::unique_ptr<std::FILE, int (*)(std::FILE *)> file(std::fopen(temporary.c_str(), "wb"), std::fclose);
        const auto check = [&](bool good) {
            if (!good) {
                throw kvsieve::Error(kvsieve::ErrorCode::io, fmt::format("cannot write {}: {}", out.string(),
                                                                         std::generic_category().message(errno)));
            }
        };
        check(file != nullptr);
        kvsieve::write_random_model(
            shape, [&](const void * data, size_t n) { check(std::fwrite(data, 1, n, file.get()) == n); },
            [&](double share) {
                progress.update("writing", share);
                return !InterruptGuard::requested();
            });
        check(std::fflush(file.get()) == 0);
    });
}

void make_model(const MakeModelOptions & options) {
    kvsieve::ModelShape shape = options.shape;
    shape.type = kvsieve::parse_weight_type(options.type);
    shape.seed = static_cast<uint64_t>(options.seed);
    shape.rope_scaling = options.rope_scaling == "yarn"     ? kvsieve::RopeScaling::yarn
                         : options.rope_scaling == "linear" ? kvsieve::RopeScaling::linear
                                                            : kvsieve::RopeScaling::none;
    const uint64_t bytes = kvsieve::random_model_bytes(shape);
    const fs::path out(options.out);
    check_writable(out);
    check_space(out, bytes);
    const TerminalStyle style = TerminalStyle::of_stderr();
    Progress progress(style);
    write_model(out, shape, progress);
    progress.hide();
    fmt::print(stderr, "{}: {}, {} layers, width {}, {} heads, {} KV heads x {}, {} of f16 KV cache per token\n",
               out.string(), format_bytes(bytes), shape.n_layer, shape.n_embd, shape.n_head, shape.n_head_kv,
               shape.head_dim, format_count(kvsieve::kv_bytes_per_token_f16(shape)) + " bytes");
}

}  // namespace

void add_make_model_command(CLI::App & app) {
    CLI::App * command = app.add_subcommand("make-model", "Write a model with random weights and a given shape");
    const auto options = std::make_shared<MakeModelOptions>();
    kvsieve::ModelShape & shape = options->shape;
    command->add_option("-o,--out", options->out, "The GGUF file to write")->type_name("FILE")->required();
    // The ranges are wide here; check_model_shape() has the limits and says them in its own words.
    constexpr int64_t kMost = 2147483647;
    add_integer(*command, "--layers", shape.n_layer, 0, kMost, "Layers");
    add_integer(*command, "--width", shape.n_embd, 0, kMost, "Width of the residual stream");
    add_integer(*command, "--heads", shape.n_head, 0, kMost, "Query heads");
    shape.n_head_kv = shape.head_dim = shape.n_ff = kNotGiven;
    add_integer(*command, "--kv-heads", shape.n_head_kv, 0, kMost, "KV heads")->default_str("as many as heads");
    add_integer(*command, "--head-dim", shape.head_dim, 0, kMost, "Size of a head")->default_str("width / heads");
    add_integer(*command, "--ff", shape.n_ff, 0, kMost, "Width of the feed-forward layer")->default_str("4 x width");
    add_integer(*command, "--vocab", shape.n_vocab, 0, kMost, "Vocabulary");
    add_integer(*command, "--ctx", shape.n_ctx, 0, kMost, "Context length that the metadata state");
    command
        ->add_option("--type", options->type,
                     "Type of the matrices: " + fmt::format("{}", fmt::join(kvsieve::weight_type_names(), ", ")))
        ->type_name("TYPE")
        ->default_str(options->type);
    add_integer(*command, "--seed", options->seed, 0, kMost, "Equal seeds and shapes give equal files");
    add_number(*command, "--rope-freq-base", shape.rope_freq_base, 0, 1e12, "Base of the RoPE frequencies");
    add_choice(*command, "--rope-scaling", options->rope_scaling, {"none", "linear", "yarn"}, "Kind of RoPE scaling");
    add_number(*command, "--rope-factor", shape.rope_factor, 1, 1e6, "Factor of the RoPE scaling");
    command->add_flag("--rope-freqs", shape.rope_freqs, "With a factor for each RoPE frequency, as in Llama 3");
    command->add_flag("--biases", shape.biases, "With a bias on every projection");
    command->add_flag("--tied", shape.tied_output, "The output matrix is the token embedding");
    command->callback([options] {
        complete(options->shape);
        make_model(*options);
    });
}
