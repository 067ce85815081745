// SPDX-License-Identifier: MIT
#include "graph/tile_product.h"

#include <ggml-backend.h>
#include <ggml-cpp.h>
#include <ggml-cpu.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>
#include <random>
#include <string_view>
#include <vector>

#include "graph/packed_weights.h"
#include "graph/tile_kernel.h"

namespace kvsieve {
namespace {

/// dst, bytes: tile_rows_at() of src[0], f32 rows, for products with matrices of the type that userdata points to.
void quantise_rows(ggml_tensor * dst, int ith, int nth, void * userdata) {
    const ggml_type type = *static_cast<const ggml_type *>(userdata);
    const ggml_tensor * x = dst->src[0];
    const ggml_type row_type = tile_shape(type).row_type;
    const TileRows rows = tile_rows_at(type, x->ne[0], x->ne[1], dst->data);
    thread_local std::vector<uint8_t> quantised;
    quantised.resize(ggml_row_size(row_type, x->ne[0]));
    for (int32_t r = ith; r < rows.n_row; r += nth) {
        const auto * row =
            reinterpret_cast<const float *>(static_cast<const char *>(x->data) + static_cast<size_t>(r) * x->nb[1]);
        ggml_get_type_traits_cpu(row_type)->from_float(row, quantised.data(), x->ne[0]);
        fill_tile_row(type, quantised.data(), r, rows);
    }
}

/// dst [n_out, n]; src[0] what quantise_rows() left, src[1] the matrix. The columns are split over the threads.
void multiply(ggml_tensor * dst, int ith, int nth, void * /*userdata*/) {
    const ggml_tensor * w = dst->src[1];
    const TileRows rows = tile_rows_at(w->type, w->ne[0], dst->ne[1], dst->src[0]->data);
    const size_t column_bytes = tile_shape(w->type).bytes * static_cast<size_t>(rows.n_block);
    const int64_t n_tile = w->ne[1] / kTileColumns, n_group = (n_tile + kTileGroup - 1) / kTileGroup;
    for (int64_t i = n_group * ith / nth; i < n_group * (ith + 1) / nth; ++i) {
        const int64_t first = i * kTileGroup;
        multiply_tiles(w->type, rows, static_cast<const uint8_t *>(w->data) + static_cast<size_t>(first) * column_bytes,
                       static_cast<int32_t>(std::min<int64_t>(kTileGroup, n_tile - first)),
                       static_cast<float *>(dst->data) + first * kTileColumns, dst->nb[1] / sizeof(float));
    }
}

/// Has a product of made-up numbers in this layout the bits of ggml's?
bool agrees_with_ggml(ggml_type type, ggml_backend_buffer_type_t layout) {
    constexpr int64_t n_in = 512, n_out = 96, n_row = 3;
    const ggml_context_ptr ctx(ggml_init({4 * ggml_tensor_overhead(), nullptr, true}));
    ggml_tensor * w = ggml_new_tensor_2d(ctx.get(), type, n_in, n_out);
    const ggml_backend_buffer_ptr buffer(
        ggml_backend_buft_alloc_buffer(layout, ggml_backend_buft_get_alloc_size(layout, w)));
    if (!buffer || ggml_backend_buffer_get_size(buffer.get()) < tile_shape(type).bytes * n_in /
                                                                    static_cast<size_t>(tile_shape(type).n_element) *
                                                                    n_out / kTileColumns) {
        return false;
    }
    ggml_backend_tensor_alloc(buffer.get(), w, ggml_backend_buffer_get_base(buffer.get()));
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    const auto numbers = [&](int64_t n) {
        std::vector<float> all(static_cast<size_t>(n));
        std::generate(all.begin(), all.end(), [&] { return normal(random); });
        return all;
    };
    const std::vector<float> matrix = numbers(n_in * n_out);
    std::vector<uint8_t> quantised(ggml_row_size(type, n_in) * n_out);
    ggml_quantize_chunk(type, matrix.data(), quantised.data(), 0, n_out, n_in, nullptr);
    ggml_backend_tensor_set(w, quantised.data(), 0, quantised.size());

    std::vector<float> x = numbers(n_in * n_row);
    std::array<std::vector<float>, 2> products;
    for (const bool own : {false, true}) {
        std::vector<float> & product = products[own ? 1 : 0];
        product.resize(n_out * n_row);
        GraphRunner(1).run(8, [&](GraphBuilder & b) {
            ggml_tensor * rows = b.external(GGML_TYPE_F32, n_in, n_row, 1, x.data());
            b.expand(ggml_cpy(b.ctx, own ? tile_product(b, w, rows) : ggml_mul_mat(b.ctx, w, rows),
                              b.external(GGML_TYPE_F32, n_out, n_row, 1, product.data())));
        });
    }
    return std::memcmp(products[0].data(), products[1].data(), products[0].size() * sizeof(float)) == 0;
}

}  // namespace

ggml_backend_buffer_type_t tile_layout() {
    static ggml_backend_buffer_type_t amx = [] {
        const std::vector<ggml_backend_buffer_type_t> all = weight_layouts();
        const auto found = std::find_if(all.begin(), all.end(), [](ggml_backend_buffer_type_t layout) {
            return std::string_view(ggml_backend_buft_name(layout)) == "AMX";
        });
        return found == all.end() ? nullptr : *found;
    }();
    return amx;
}

bool takes_tile_product(const ggml_tensor & w, int64_t n_row) {
    if (w.buffer == nullptr || n_row > kMaxTileRows || tile_shape(w.type).bytes == 0 || !tile_kernel_runs()) {
        return false;
    }
    ggml_backend_buffer_type_t layout = ggml_backend_buffer_get_type(w.buffer);
    if (layout != tile_layout()) {
        return false;
    }
    static std::array<std::once_flag, GGML_TYPE_COUNT> tried;
    static std::array<bool, GGML_TYPE_COUNT> agrees{};
    std::call_once(tried[w.type], [&] { agrees[w.type] = agrees_with_ggml(w.type, layout); });
    return agrees[w.type];
}

ggml_tensor * tile_product(const GraphBuilder & b, ggml_tensor * w, ggml_tensor * x) {
    ggml_tensor * rows =
        ggml_custom_4d(b.ctx, GGML_TYPE_I8, static_cast<int64_t>(tile_rows_bytes(w->type, x->ne[0], x->ne[1])), 1, 1, 1,
                       &x, 1, quantise_rows, GGML_N_TASKS_MAX, &w->type);
    ggml_tensor * args[] = {rows, w};
    return ggml_custom_4d(b.ctx, GGML_TYPE_F32, w->ne[1], x->ne[1], 1, 1, args, 2, multiply, GGML_N_TASKS_MAX, nullptr);
}

}  // namespace kvsieve
