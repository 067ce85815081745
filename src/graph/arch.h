// SPDX-License-Identifier: MIT
// A decoder architecture: what its metadata and tensors are called, and how a layer is computed. One file in arch/
// and one row of the table in arch.cpp per architecture; differences in capability are fields of DecoderConfig.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "graph/runner.h"
#include "graph/weights.h"

namespace kvsieve {

/// Rotary position embedding as ggml_rope_ext takes it.
struct RopeConfig {
    int32_t n_dims = 0;
    int32_t mode = 0;  ///< GGML_ROPE_TYPE_*
    int32_t n_ctx_orig = 0;
    float freq_base = 10000.0F;
    float freq_scale = 1.0F;
    float ext_factor = 0.0F;
    float attn_factor = 1.0F;
    float beta_fast = 32.0F;
    float beta_slow = 1.0F;
};

struct DecoderConfig {
    int32_t n_layer = 0;
    int32_t n_embd = 0;
    int32_t n_head = 0;
    int32_t n_head_kv = 0;
    int32_t head_dim = 0;
    int32_t n_ff = 0;
    int32_t n_vocab = 0;
    int32_t n_ctx_train = 0;
    float norm_eps = 1e-5F;
    float kq_scale = 1.0F;
    RopeConfig rope;
};

/// Query [head_dim, n_head, n], key and value [head_dim, n_head_kv, n] of n tokens; query and key are rotated.
struct Qkv {
    ggml_tensor * q = nullptr;
    ggml_tensor * q_unrotated = nullptr;  ///< the query before RoPE, after bias and norm; costs nothing unless used
    ggml_tensor * k = nullptr;
    ggml_tensor * v = nullptr;
};

/// One loaded decoder. Immutable after make_decoder(); the weights must outlive it.
class Decoder {
  public:
    virtual ~Decoder() = default;
    [[nodiscard]] const DecoderConfig & config() const { return config_; }
    /// Token embeddings [n_embd, n] of ids i32 [n].
    virtual ggml_tensor * embed(const GraphBuilder & b, ggml_tensor * ids) const = 0;
    /// From the residual stream [n_embd, n] and positions i32 [n].
    virtual Qkv qkv(const GraphBuilder & b, int32_t il, ggml_tensor * residual, ggml_tensor * positions) const = 0;
    /// What RoPE divides the frequencies of layer `il` by, [rope.n_dims / 2], or nullptr.
    [[nodiscard]] virtual const float * rope_factors(int32_t il) const = 0;
    /// The output projection of layer `il`, [n_head * head_dim, n_embd], in the file's order of bytes.
    [[nodiscard]] virtual const ggml_tensor * output_projection(int32_t il) const = 0;
    /// The next residual stream [n_embd, n] from the last one and the heads' outputs [head_dim * n_head, n].
    virtual ggml_tensor * finish_layer(const GraphBuilder & b, int32_t il, ggml_tensor * residual,
                                       ggml_tensor * heads) const = 0;
    /// Logits [n_vocab, n].
    virtual ggml_tensor * logits(const GraphBuilder & b, ggml_tensor * residual) const = 0;

  protected:
    DecoderConfig config_;
};

/// A row of the table of architectures.
struct ArchInfo {
    std::string_view name;  ///< general.architecture
    std::unique_ptr<Decoder> (*make)(const GgufFile & file, Weights & weights, int32_t n_ctx);
};

[[nodiscard]] std::span<const ArchInfo> architectures();

/// Reads metadata and tensors of a model file. `n_ctx` = the context asked for (some RoPE scalings depend on it),
/// 0 = as trained. Throws Error{bad_input} for an unknown architecture, a missing tensor or a wrong shape.
[[nodiscard]] std::unique_ptr<Decoder> make_decoder(const GgufFile & file, Weights & weights, int32_t n_ctx);

/// Row of the table, defined in arch/llama.cpp.
[[nodiscard]] std::unique_ptr<Decoder> make_llama(const GgufFile & file, Weights & weights, int32_t n_ctx);

/// Common metadata of decoder files under the prefix `arch`: sizes, heads, RoPE with its scaling.
[[nodiscard]] DecoderConfig read_decoder_config(const GgufFile & file, std::string_view arch);

/// y = w x (+ bias).
[[nodiscard]] ggml_tensor * linear(const GraphBuilder & b, ggml_tensor * x, ggml_tensor * w, ggml_tensor * bias);
/// Root mean square norm with weight.
[[nodiscard]] ggml_tensor * rms_norm(const GraphBuilder & b, ggml_tensor * x, ggml_tensor * w, float eps);
/// Rotates x [head_dim, n_head, n] by positions; factors may be nullptr.
[[nodiscard]] ggml_tensor * rope(const GraphBuilder & b, const RopeConfig & config, ggml_tensor * x,
                                 ggml_tensor * positions, ggml_tensor * factors);

}  // namespace kvsieve
