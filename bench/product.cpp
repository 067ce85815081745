// SPDX-License-Identifier: MIT
// The products of decoding and of a prompt, without the rest of a model: matrices in tiles times few or many rows, by
// the kernel and by ggml in the layout that it prefers. One JSON line per type and number of rows.
//   kvsieve_product_cost [WIDTH THREADS REPEATS], default 2048 2 7
// Matrices of WIDTH x WIDTH follow each other in one graph, over more memory than caches hold. The results are
// compared before anything is timed. Kernel, ggml and plain reading take turns; `_ms` are the best and the median of
// the repeats, `_gbps` count the matrices' bytes in the best.
#include <ggml-cpp.h>
#include <ggml-cpu.h>

#include <cmath>
#include <cstdio>
#include <exception>
#include <nlohmann/json.hpp>
#include <random>

#include "graph/packed_weights.h"
#include "graph/tile_kernel.h"
#include "graph/tile_product.h"
#include "timing.h"

using namespace kvsieve;

namespace {

struct Arguments {
    int32_t width = 2048, n_threads = 2, n_repeat = 7;
};

constexpr double kBound = 0.02;  // of results around 1: some of ggml's layouts quantise rows in another way

/// As many matrices of a type as it takes, in tiles or in ggml's layout; their numbers are all the same ones.
class Matrices {
  public:
    Matrices(ggml_type type, int32_t width, ggml_backend_buffer_type_t ggml_layout) {
        const size_t in_file = ggml_row_size(type, width) * static_cast<size_t>(width);
        const size_t n = (PlainReading::kBytes + in_file - 1) / in_file;
        ctx_.reset(ggml_init({(n + 1) * ggml_tensor_overhead(), nullptr, true}));
        std::mt19937 random(1);
        std::normal_distribution<float> normal;
        std::vector<float> numbers(static_cast<size_t>(width) * static_cast<size_t>(width));
        std::generate(numbers.begin(), numbers.end(),
                      [&] { return normal(random) / std::sqrt(static_cast<float>(width)); });
        std::vector<uint8_t> quantised(in_file);
        ggml_quantize_chunk(type, numbers.data(), quantised.data(), 0, width, width, nullptr);
        const bool tiles = ggml_layout == nullptr;
        ggml_backend_buffer_type_t layout = tiles ? ggml_backend_cpu_buffer_type() : ggml_layout;
        for (size_t i = 0; i < n; ++i) {
            ggml_tensor * w = ggml_new_tensor_2d(ctx_.get(), type, width, width);
            bytes_each_ = tiles ? tiles_bytes(type, width, width) : ggml_backend_buft_get_alloc_size(layout, w);
            buffers_.emplace_back(ggml_backend_buft_alloc_buffer(layout, bytes_each_));
            ggml_backend_tensor_alloc(buffers_.back().get(), w, ggml_backend_buffer_get_base(buffers_.back().get()));
            if (tiles) {
                pack_into_tiles(*w, quantised.data());
            } else {
                ggml_backend_tensor_set(w, quantised.data(), 0, quantised.size());
            }
            matrices_.push_back(w);
        }
    }

    [[nodiscard]] size_t n() const { return matrices_.size(); }
    [[nodiscard]] size_t bytes() const { return n() * bytes_each_; }

    /// x times every matrix; the last product.
    std::vector<float> run(std::vector<float> & x, GraphRunner & runner, double * ms = nullptr) const {
        const int64_t width = matrices_.front()->ne[0], n_row = static_cast<int64_t>(x.size()) / width;
        std::vector<float> out(x.size());
        const double taken = ms_of([&] {
            runner.run(4 * n() + 8, [&](GraphBuilder & b) {
                ggml_tensor * rows = b.external(GGML_TYPE_F32, width, n_row, 1, x.data());
                ggml_tensor * product = nullptr;
                for (ggml_tensor * w : matrices_) {
                    product = b.expand(is_in_tiles(*w) ? tile_product(b, w, rows) : ggml_mul_mat(b.ctx, w, rows));
                }
                b.expand(ggml_cpy(b.ctx, product, b.external(GGML_TYPE_F32, width, n_row, 1, out.data())));
            });
        });
        if (ms != nullptr) {
            *ms = taken;
        }
        return out;
    }

  private:
    ggml_context_ptr ctx_;
    std::vector<ggml_backend_buffer_ptr> buffers_;
    std::vector<ggml_tensor *> matrices_;
    size_t bytes_each_ = 0;
};

void measure(ggml_type type, const Matrices & tiles, const Matrices & ggmls, const char * layout, int32_t n_row,
             const Arguments & arguments, PlainReading & reading, GraphRunner & runner) {
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    std::vector<float> x(static_cast<size_t>(n_row) * static_cast<size_t>(arguments.width));
    std::generate(x.begin(), x.end(), [&] { return normal(random); });
    const double difference =
        checked_difference("the kernel's product", tiles.run(x, runner), ggmls.run(x, runner), kBound);
    nlohmann::ordered_json line;
    line["type"] = ggml_type_name(type);
    line["width"] = arguments.width;
    line["n_matrix"] = tiles.n();
    line["n_row"] = n_row;
    line["threads"] = arguments.n_threads;
    line["ggml_layout"] = layout;
    line["max_difference"] = difference;
    time_in_turns(line, arguments.n_repeat, reading, {[&](double & ms) { tiles.run(x, runner, &ms); }, tiles.bytes()},
                  {[&](double & ms) { ggmls.run(x, runner, &ms); }, ggmls.bytes()});
    std::printf("%s\n", line.dump().c_str());
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char ** argv) {
    try {
        Arguments arguments;
        int32_t * const all[] = {&arguments.width, &arguments.n_threads, &arguments.n_repeat};
        if (argc > 4) {
            throw std::runtime_error("expected at most WIDTH THREADS REPEATS");
        }
        for (int i = 1; i < argc; ++i) {
            *all[i - 1] = number(argv[i]);
        }
        if (arguments.width % 256 != 0) {
            throw std::runtime_error("expected a multiple of 256 for WIDTH, got " + std::to_string(arguments.width));
        }
        if (!tile_kernel_runs()) {
            throw std::runtime_error("this processor has no AVX-512 VNNI");
        }
        PlainReading reading(arguments.n_threads);
        GraphRunner runner(arguments.n_threads);
        for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
            const auto type = static_cast<ggml_type>(i);
            if (tile_shape(type).bytes == 0) {
                continue;
            }
            ggml_backend_buffer_type_t layout = ggml_layout(type, arguments.width, arguments.width);
            layout = layout != nullptr ? layout : ggml_backend_cpu_buffer_type();  // as in the file
            const Matrices tiles(type, arguments.width, nullptr), ggmls(type, arguments.width, layout);
            for (const int32_t n_row : {1, 2, 4, 8, 16, 32, 512}) {
                measure(type, tiles, ggmls, ggml_backend_buft_name(layout), n_row, arguments, reading, runner);
            }
        }
    } catch (const std::exception & e) {
        std::fprintf(stderr, "kvsieve_product_cost: %s\n", e.what());
        return 1;
    }
    return 0;
}
