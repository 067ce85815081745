// SPDX-License-Identifier: MIT
// The products of decoding, without the rest of a model: matrices in ggml's AMX tiles times few rows, by the kernel and
// by ggml. One JSON line per type and number of rows.
//   kvsieve_product_cost [WIDTH THREADS REPEATS], default 2048 2 7
// Matrices of WIDTH x WIDTH follow each other in one graph, over more memory than caches hold. The results must have
// the same bits. Kernel, ggml and plain reading take turns; `_ms` are the best and the median of the repeats, `_gbps`
// count the matrices' bytes in the best.
#include <ggml-cpp.h>

#include <cstdio>
#include <cstring>
#include <exception>
#include <nlohmann/json.hpp>
#include <random>

#include "eval/metrics.h"
#include "graph/packed_weights.h"
#include "graph/tile_kernel.h"
#include "graph/tile_product.h"
#include "timing.h"

using namespace kvsieve;

namespace {

struct Arguments {
    int32_t width = 2048, n_threads = 2, n_repeat = 7;
};

/// As many matrices of a type as it takes; their numbers are all the same ones.
class Matrices {
  public:
    Matrices(ggml_type type, int32_t width, ggml_backend_buffer_type_t layout) {
        const size_t in_file = ggml_row_size(type, width) * static_cast<size_t>(width);
        const size_t n = (PlainReading::kBytes + in_file - 1) / in_file;
        ctx_.reset(ggml_init({(n + 1) * ggml_tensor_overhead(), nullptr, true}));
        std::mt19937 random(1);
        std::normal_distribution<float> normal;
        std::vector<float> numbers(static_cast<size_t>(width) * static_cast<size_t>(width));
        std::generate(numbers.begin(), numbers.end(), [&] { return normal(random) / 32; });
        std::vector<uint8_t> quantised(in_file);
        ggml_quantize_chunk(type, numbers.data(), quantised.data(), 0, width, width, nullptr);
        for (size_t i = 0; i < n; ++i) {
            ggml_tensor * w = ggml_new_tensor_2d(ctx_.get(), type, width, width);
            const size_t bytes = ggml_backend_buft_get_alloc_size(layout, w);
            buffers_.emplace_back(ggml_backend_buft_alloc_buffer(layout, bytes));
            ggml_backend_tensor_alloc(buffers_.back().get(), w, ggml_backend_buffer_get_base(buffers_.back().get()));
            if (i == 0) {
                ggml_backend_tensor_set(w, quantised.data(), 0, quantised.size());
                bytes_each_ = bytes;
            } else {
                std::memcpy(w->data, matrices_.front()->data, bytes);
            }
            matrices_.push_back(w);
        }
    }

    [[nodiscard]] size_t n() const { return matrices_.size(); }
    [[nodiscard]] size_t bytes() const { return n() * bytes_each_; }
    [[nodiscard]] const ggml_tensor & first() const { return *matrices_.front(); }

    /// x times every matrix; the last product.
    std::vector<float> run(std::vector<float> & x, bool kernel, GraphRunner & runner, double * ms = nullptr) const {
        const int64_t width = first().ne[0], n_row = static_cast<int64_t>(x.size()) / width;
        std::vector<float> out(x.size());
        const double taken = ms_of([&] {
            runner.run(4 * n() + 8, [&](GraphBuilder & b) {
                ggml_tensor * rows = b.external(GGML_TYPE_F32, width, n_row, 1, x.data());
                ggml_tensor * product = nullptr;
                for (ggml_tensor * w : matrices_) {
                    product = b.expand(kernel ? tile_product(b, w, rows) : ggml_mul_mat(b.ctx, w, rows));
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

void measure(const Matrices & matrices, int32_t n_row, const Arguments & arguments, PlainReading & reading,
             GraphRunner & runner) {
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    std::vector<float> x(static_cast<size_t>(n_row) * static_cast<size_t>(arguments.width));
    std::generate(x.begin(), x.end(), [&] { return normal(random); });
    if (matrices.run(x, true, runner) != matrices.run(x, false, runner)) {
        throw std::runtime_error("the kernel's product differs from ggml's");
    }
    std::vector<double> kernel, ggml, read;
    for (int32_t i = 0; i < arguments.n_repeat; ++i) {
        read.push_back(reading.ms());
        (void)matrices.run(x, true, runner, &kernel.emplace_back());
        (void)matrices.run(x, false, runner, &ggml.emplace_back());
    }
    nlohmann::ordered_json line;
    line["type"] = ggml_type_name(matrices.first().type);
    line["width"] = arguments.width;
    line["n_matrix"] = matrices.n();
    line["n_row"] = n_row;
    line["threads"] = arguments.n_threads;
    line["kernel_ms"] = best(kernel);
    line["kernel_ms_median"] = quantile(kernel, 0.5);
    line["ggml_ms"] = best(ggml);
    line["ggml_ms_median"] = quantile(ggml, 0.5);
    line["kernel_gbps"] = gbps(matrices.bytes(), best(kernel));
    line["ggml_gbps"] = gbps(matrices.bytes(), best(ggml));
    line["read_gbps"] = gbps(reading.bytes(), best(read));
    line["ggml_over_kernel"] = best(ggml) / best(kernel);
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
        ggml_backend_buffer_type_t amx = tile_layout();
        if (amx == nullptr) {
            throw std::runtime_error("this processor, or this build of ggml, has no AMX");
        }
        PlainReading reading(arguments.n_threads);
        GraphRunner runner(arguments.n_threads);
        for (int type = 0; type < GGML_TYPE_COUNT; ++type) {
            if (tile_shape(static_cast<ggml_type>(type)).bytes == 0) {
                continue;
            }
            const Matrices matrices(static_cast<ggml_type>(type), arguments.width, amx);
            for (const int32_t n_row : {1, 2, 4, 8, 16, kMaxTileRows}) {
                measure(matrices, n_row, arguments, reading, runner);
            }
        }
    } catch (const std::exception & e) {
        std::fprintf(stderr, "kvsieve_product_cost: %s\n", e.what());
        return 1;
    }
    return 0;
}
