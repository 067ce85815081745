// SPDX-License-Identifier: MIT
#include "graph/packed_weights.h"

#include <ggml-cpu.h>

#include <vector>

#include "graph/tile_product.h"
#include "kvsieve/error.h"
#include "policy/parallel.h"

namespace kvsieve {
namespace {

ggml_context_ptr descriptions(size_t n_tensors) {
    ggml_context_ptr ctx(ggml_init({ggml_tensor_overhead() * n_tensors, nullptr, true}));
    if (!ctx) {
        throw Error(ErrorCode::runtime, "not enough memory for the descriptions of the weights");
    }
    return ctx;
}

/// Can a matrix of this type and shape be multiplied in the layout?
bool multiplies(ggml_backend_dev_t cpu, ggml_backend_buffer_type_t layout, ggml_type type, int64_t n_in,
                int64_t n_out) {
    const ggml_context_ptr ctx = descriptions(3);
    ggml_tensor * w = ggml_new_tensor_2d(ctx.get(), type, n_in, n_out);
    ggml_tensor * x = ggml_new_tensor_2d(ctx.get(), GGML_TYPE_F32, n_in, 512);
    ggml_tensor * product = ggml_mul_mat(ctx.get(), w, x);
    const ggml_backend_buffer_ptr nothing(ggml_backend_buft_alloc_buffer(layout, 0));
    w->buffer = nothing.get();
    return ggml_backend_dev_supports_op(cpu, product);
}

}  // namespace

ggml_backend_buffer_type_t ggml_layout(ggml_type type, int64_t n_in, int64_t n_out) {
    ggml_backend_dev_t cpu = ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0);
    const auto list = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(
        ggml_backend_reg_get_proc_address(ggml_backend_cpu_reg(), "ggml_backend_dev_get_extra_bufts"));
    // the preferred one first
    for (ggml_backend_buffer_type_t * layout = list == nullptr ? nullptr : list(cpu);
         layout != nullptr && *layout != nullptr; ++layout) {
        if (multiplies(cpu, *layout, type, n_in, n_out)) {
            return *layout;
        }
    }
    return nullptr;
}

PackedWeights::PackedWeights(const GgufFile & file, const std::set<std::string> & names, int32_t n_threads)
    : ctx_(descriptions(names.size() + 1)) {
    struct Job {
        const GgufTensor * from;
        ggml_tensor * to;
        bool tiles;
    };
    std::vector<Job> jobs;
    for (const std::string & name : names) {
        const GgufTensor * matrix = file.find(name);
        if (matrix == nullptr || matrix->ne[2] != 1 || matrix->ne[3] != 1) {
            continue;
        }
        const size_t n_tile_bytes = tiles_bytes(matrix->type, matrix->ne[0], matrix->ne[1]);
        ggml_backend_buffer_type_t layout =
            n_tile_bytes > 0 ? ggml_backend_cpu_buffer_type() : ggml_layout(matrix->type, matrix->ne[0], matrix->ne[1]);
        if (layout == nullptr) {
            continue;
        }
        ggml_tensor * tensor = ggml_new_tensor_2d(ctx_.get(), matrix->type, matrix->ne[0], matrix->ne[1]);
        ggml_backend_buffer_ptr buffer(ggml_backend_buft_alloc_buffer(
            layout, n_tile_bytes > 0 ? n_tile_bytes : ggml_backend_buft_get_alloc_size(layout, tensor)));
        if (!buffer || ggml_backend_tensor_alloc(buffer.get(), tensor, ggml_backend_buffer_get_base(buffer.get())) !=
                           GGML_STATUS_SUCCESS) {
            throw Error(ErrorCode::runtime, file.path().string() + ": not enough memory for a packed copy of " + name +
                                                "; without packing it is read from the file");
        }
        jobs.push_back({matrix, tensor, n_tile_bytes > 0});
        tensors_[name] = tensor;
        buffers_[name] = std::move(buffer);
    }
    parallel_for(jobs.size(), n_threads, [&](size_t i) {
        if (jobs[i].tiles) {
            pack_into_tiles(*jobs[i].to, jobs[i].from->data);
        } else {
            ggml_backend_tensor_set(jobs[i].to, jobs[i].from->data, 0, jobs[i].from->nbytes);
        }
    });
    if (!jobs.empty()) {
        file.drop_pages();
    }
}

bool PackedWeights::bind(const std::string & name, ggml_tensor & tensor) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) {
        return false;
    }
    tensor.data = found->second->data;
    tensor.buffer = found->second->buffer;
    tensor.extra = found->second->extra;
    return true;
}

uint64_t PackedWeights::bytes() const {
    uint64_t sum = 0;
    for (const auto & [name, buffer] : buffers_) {
        sum += ggml_backend_buffer_get_size(buffer.get());
    }
    return sum;
}

}  // namespace kvsieve
