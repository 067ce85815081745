// SPDX-License-Identifier: MIT
// Builds, allocates and computes ggml graphs on the CPU.
#pragma once

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace kvsieve {

/// What a graph-building function works with: a metadata context and the graph that it fills.
struct GraphBuilder {
    ggml_context * ctx = nullptr;
    ggml_cgraph * graph = nullptr;

    /// Makes the tensor part of the graph at this place of the order.
    ggml_tensor * expand(ggml_tensor * tensor) const;
    /// A tensor whose memory is given by the caller and outlives the computation.
    [[nodiscard]] ggml_tensor * external(ggml_type type, int64_t ne0, int64_t ne1, int64_t ne2, size_t nb1, size_t nb2,
                                         void * data) const;
    /// The same, rows and matrices densely packed.
    [[nodiscard]] ggml_tensor * external(ggml_type type, int64_t ne0, int64_t ne1, int64_t ne2, void * data) const;
};

/// Owns the working memory of graphs on the CPU. Not thread-safe; one per session.
class GraphRunner {
  public:
    explicit GraphRunner(int32_t n_threads);
    ~GraphRunner();
    GraphRunner(const GraphRunner &) = delete;
    GraphRunner & operator=(const GraphRunner &) = delete;

    /// Builds a graph with at most `max_nodes` nodes, allocates what is not external, computes it.
    /// Outputs are external tensors that the graph writes. Throws Error{runtime} when memory or the backend fails.
    void run(size_t max_nodes, const std::function<void(GraphBuilder &)> & build);

    [[nodiscard]] int32_t n_threads() const;
    /// Most bytes that a graph took so far: intermediate results, the kernels' working memory, descriptions.
    [[nodiscard]] uint64_t scratch_bytes() const { return scratch_bytes_; }
    /// Gives the working memory back; the next graph allocates anew.
    void release();

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
    uint64_t scratch_bytes_ = 0;
};

}  // namespace kvsieve
