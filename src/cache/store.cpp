// SPDX-License-Identifier: MIT
// A layer leaves prefill: its rows are merged, rotated and quantised, each once.
#include <ggml-cpu.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <numeric>
#include <string>
#include <utility>

#include "cache/check_plan.h"
#include "cache/ragged_kv_cache.h"
#include "kvsieve/error.h"
#include "policy/parallel.h"

namespace kvsieve {

namespace {

/// Original positions of given rows: `positions` where they are given, else 0 .. n-1.
struct GivenRows {
    std::span<const int32_t> positions;
    int32_t n_tokens;

    /// Row of a position, -1 where it is not given.
    [[nodiscard]] int32_t row_of(int32_t position) const {
        if (positions.empty()) {
            return position < n_tokens ? position : -1;
        }
        const auto found = std::lower_bound(positions.begin(), positions.end(), position);
        return found != positions.end() && *found == position ? static_cast<int32_t>(found - positions.begin()) : -1;
    }
    [[nodiscard]] int32_t end() const { return positions.empty() ? n_tokens : positions.back() + 1; }
    [[nodiscard]] std::vector<int32_t> all() const {
        std::vector<int32_t> out(positions.begin(), positions.end());
        if (positions.empty()) {
            out.resize(static_cast<size_t>(n_tokens));
            std::iota(out.begin(), out.end(), 0);
        }
        return out;
    }
};

void check_given(const GivenRows & given, const LayerPlan * plan, const std::string & where) {
    const auto refuse = [&](const std::string & what) {
        throw Error(ErrorCode::invalid_argument, where + ": " + what);
    };
    if (given.n_tokens < 1 || given.n_tokens > (1 << 30)) {
        refuse(std::to_string(given.n_tokens) + " tokens, expected at least 1");
    }
    if (given.positions.empty()) {
        return;
    }
    if (given.positions.size() != static_cast<size_t>(given.n_tokens)) {
        refuse(std::to_string(given.positions.size()) + " positions of " + std::to_string(given.n_tokens) + " rows");
    }
    int32_t before = -1;
    for (const int32_t position : given.positions) {
        if (position <= before || position >= (1 << 30)) {
            refuse("position " + std::to_string(position) + " follows " + std::to_string(before) +
                   ", expected ascending and unique");
        }
        before = position;
    }
    const auto check_held = [&](int32_t position) {
        if (given.row_of(position) < 0) {
            refuse("the plan names position " + std::to_string(position) + ", which is not among the rows given");
        }
    };
    for (size_t g = 0; plan != nullptr && g < plan->kept.size(); ++g) {
        std::for_each(plan->kept[g].begin(), plan->kept[g].end(), check_held);
    }
    for (size_t i = 0; plan != nullptr && i < plan->merged.size(); ++i) {
        check_held(plan->merged[i].from);
    }
}

}  // namespace

void RaggedKvCache::encode_row(const float * row, ggml_type type, int32_t block, uint8_t * out) const noexcept {
    const auto d = static_cast<size_t>(params_.head_dim);
    if (type == GGML_TYPE_F16) {
        ggml_cpu_fp32_to_fp16(row, reinterpret_cast<ggml_fp16_t *>(out), params_.head_dim);
        return;
    }
    alignas(64) float rotated[kMaxHeadDim];
    if (block > 0) {
        std::copy_n(row, d, rotated);
        hadamard_rotate({rotated, d}, block);
        row = rotated;
    }
    ggml_get_type_traits_cpu(type)->from_float(row, out, params_.head_dim);
}

void RaggedKvCache::store_layer(int32_t il, const F16Rows & k, const F16Rows & v, int32_t n_tokens,
                                const LayerPlan * plan, std::span<const int32_t> positions, int32_t n_threads) {
    Layer & layer = layer_at(il, "store_layer");
    const std::string where = "KV cache: store_layer " + std::to_string(il);
    const auto d = static_cast<size_t>(params_.head_dim);
    for (const F16Rows * rows : {&k, &v}) {
        if (rows->data == nullptr || (rows->row_stride != 0 && rows->row_stride < d)) {
            throw Error(ErrorCode::invalid_argument, where + ": rows without data, or a row stride of " +
                                                         std::to_string(rows->row_stride) + " elements for rows of " +
                                                         std::to_string(d));
        }
    }
    for (const Head & head : layer.heads) {
        if (!head.positions.empty()) {
            throw Error(ErrorCode::invalid_argument, where + ": the layer holds " +
                                                         std::to_string(head.positions.size()) +
                                                         " rows already, expected an empty one");
        }
    }
    const GivenRows given{positions, n_tokens};
    check_given(given, nullptr, where);
    if (plan != nullptr) {
        check_layer_plan(*plan, il, params_.n_head_kv, given.end());
        check_given(given, plan, where);
        check_types(il, *plan);
    }

    std::vector<MergeGroup> merged;
    try {
        for (size_t g = 0; g < layer.heads.size(); ++g) {
            layer.heads[g].type =
                plan != nullptr && !plan->types.empty() ? plan->type_of_head(static_cast<int32_t>(g)) : params_.type;
        }
        std::vector<std::vector<int32_t>> held(layer.heads.size());
        for (size_t g = 0; g < held.size(); ++g) {
            held[g] = plan != nullptr ? plan->of_head(static_cast<int32_t>(g)) : given.all();
            held[g].reserve(held[g].size() + kMaxSpareRows);
        }
        if (plan != nullptr) {
            merged = merge_groups(*plan);
        }
        make_room_for(layer, il, held);
        for (size_t g = 0; g < held.size(); ++g) {
            layer.heads[g].positions = std::move(held[g]);
            layer.heads[g].next_position = given.end();
        }
        layer.order = {};
        layer.shuffled = false;
    } catch (const std::bad_alloc &) {
        throw Error(ErrorCode::runtime, "out of memory: the row index of the KV cache");
    }

    // What takes long is the memory that is touched for the first time: that goes faster with several threads.
    const size_t n_head = layer.heads.size();
    parallel_for(2 * n_head, n_threads, [&](size_t task) {
        const bool is_k = task < n_head;
        const size_t g = task % n_head;
        const F16Rows & rows = is_k ? k : v;
        const size_t row_stride = rows.row_stride != 0 ? rows.row_stride : d;
        const size_t head_stride =
            rows.head_stride != 0 ? rows.head_stride : static_cast<size_t>(n_tokens) * row_stride;
        const Head & head = layer.heads[g];
        const Format & row_format = format(head);
        const int32_t block = is_k ? row_format.k_block : row_format.v_block;
        const auto row_at = [&](int32_t position) {
            return rows.data + g * head_stride + static_cast<size_t>(given.row_of(position)) * row_stride;
        };
        alignas(64) float row_f32[kMaxHeadDim];
        double sum[kMaxHeadDim];
        uint8_t * out = layer.arena.data() + (is_k ? head.k_offset : head.v_offset);
        auto group = merged.begin();
        for (const int32_t position : head.positions) {
            const ggml_fp16_t * row = row_at(position);
            if (group != merged.end() && group->into == position) {
                std::fill_n(sum, d, 0.0);
                const auto add = [&](int32_t from) {
                    ggml_cpu_fp16_to_fp32(row_at(from), row_f32, params_.head_dim);
                    std::transform(row_f32, row_f32 + d, sum, sum, [](float x, double y) { return y + x; });
                };
                add(position);
                std::for_each(group->from.begin(), group->from.end(), add);
                const double n = 1.0 + static_cast<double>(group->from.size());
                std::transform(sum, sum + d, row_f32, [&](double x) { return static_cast<float>(x / n); });
                encode_row(row_f32, row_format.type, block, out);
                ++group;
            } else if (row_format.type == GGML_TYPE_F16) {
                std::memcpy(out, row, row_format.bytes);
            } else {
                ggml_cpu_fp16_to_fp32(row, row_f32, params_.head_dim);
                encode_row(row_f32, row_format.type, block, out);
            }
            out += row_format.bytes;
        }
    });
}

}  // namespace kvsieve
