// SPDX-License-Identifier: MIT
#include "graph/runner.h"

#include <ggml-cpp.h>
#include <ggml-cpu.h>

#include <algorithm>
#include <string>

#include "cache/arena.h"
#include "kvsieve/error.h"

namespace kvsieve {

ggml_tensor * GraphBuilder::expand(ggml_tensor * tensor) const {
    ggml_build_forward_expand(graph, tensor);
    return tensor;
}

ggml_tensor * GraphBuilder::external(ggml_type type, int64_t ne0, int64_t ne1, int64_t ne2, size_t nb1, size_t nb2,
                                     void * data) const {
    ggml_tensor * tensor = ggml_new_tensor_3d(ctx, type, ne0, ne1, ne2);
    tensor->nb[1] = nb1;
    tensor->nb[2] = nb2;
    tensor->nb[3] = nb2 * static_cast<size_t>(ne2);
    tensor->data = data;
    return tensor;
}

ggml_tensor * GraphBuilder::external(ggml_type type, int64_t ne0, int64_t ne1, int64_t ne2, void * data) const {
    ggml_tensor * tensor = ggml_new_tensor_3d(ctx, type, ne0, ne1, ne2);
    tensor->data = data;
    return tensor;
}

struct GraphRunner::Impl {
    int32_t n_threads = 1;
    ggml_gallocr_ptr allocator;
    std::vector<uint8_t> metadata;
    Arena work;  // what the kernels themselves ask for: converted operands, partial results
};

GraphRunner::GraphRunner(int32_t n_threads) : impl_(std::make_unique<Impl>()) {
    ggml_cpu_init();
    impl_->n_threads = n_threads;
}

int32_t GraphRunner::n_threads() const {
    return impl_->n_threads;
}

GraphRunner::~GraphRunner() = default;

void GraphRunner::run(size_t max_nodes, const std::function<void(GraphBuilder &)> & build) {
    // a node may bring a leaf and a few views with it
    const size_t metadata_bytes = ggml_tensor_overhead() * max_nodes * 2 + ggml_graph_overhead_custom(max_nodes, false);
    impl_->metadata.resize(std::max(impl_->metadata.size(), metadata_bytes));
    const ggml_init_params params = {impl_->metadata.size(), impl_->metadata.data(), true};
    const ggml_context_ptr ctx(ggml_init(params));
    GraphBuilder builder{ctx.get(), ggml_new_graph_custom(ctx.get(), max_nodes, false)};
    build(builder);

    if (!impl_->allocator) {
        impl_->allocator.reset(ggml_gallocr_new(ggml_backend_cpu_buffer_type()));
    }
    if (!ggml_gallocr_alloc_graph(impl_->allocator.get(), builder.graph)) {
        throw Error(ErrorCode::runtime, "not enough memory for the working buffers of a graph with " +
                                            std::to_string(ggml_graph_n_nodes(builder.graph)) + " nodes");
    }
    ggml_cplan plan = ggml_graph_plan(builder.graph, impl_->n_threads, nullptr);
    impl_->work.grow(plan.work_size, "the working memory of a graph");
    plan.work_data = impl_->work.data();
    scratch_bytes_ = std::max<uint64_t>(scratch_bytes_, ggml_gallocr_get_buffer_size(impl_->allocator.get(), 0) +
                                                            impl_->work.size() + impl_->metadata.size());
    const ggml_status status = ggml_graph_compute(builder.graph, &plan);
    if (status != GGML_STATUS_SUCCESS) {
        throw Error(ErrorCode::runtime,
                    std::string("the backend could not compute a graph: ") + ggml_status_to_string(status));
    }
}

void GraphRunner::release() {
    impl_->allocator.reset();
    impl_->metadata = {};
    impl_->work.shrink(0);
}

}  // namespace kvsieve
