// SPDX-License-Identifier: MIT
// Probe queries: queries of earlier answers before RoPE, which are moved behind a prompt to see what of it answers look
// at; and how large a head's values are behind its output projection.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "gguf/gguf_file.h"
#include "graph/prefill_attention.h"
#include "graph/weights.h"

namespace kvsieve {

/// Probes of one layer. Head h's probe p is at [h][p].
struct LayerProbes {
    ggml_type type = GGML_TYPE_F32;          ///< f16 or f32
    const std::byte * queries = nullptr;     ///< [n_head][n][head_dim] before RoPE, with the steps below
    int32_t n = 0;                           ///< probes of a head
    size_t probe_bytes = 0, head_bytes = 0;  ///< from a probe, a head to the next
    std::span<const int32_t> offsets;        ///< [n_head][n] positions behind the next one, as in the answer
    std::span<const float> weights;          ///< [n_head][n], sum 1 over a head's probes
    std::span<const float> shares;           ///< [n_head][n] share of its attention that the probe paid to its prompt
};

/// Attention of a head's probes on the prompt's keys, over the probes. [n_head][n_tokens]
struct ProbeAttention {
    std::vector<float> mean, square;
};

/// The probes, rotated to `next_position` and their offsets behind it, attend to all keys of the layer. `factors` as
/// Decoder::rope_factors() gives them.
[[nodiscard]] ProbeAttention probe_attention(GraphRunner & runner, const DecoderConfig & config, const LayerKv & kv,
                                             const float * factors, const LayerProbes & probes, int32_t next_position);

/// For every layer and query head a triangular matrix F, [head_dim, head_dim], with |F v| = |v W_o|: the Cholesky
/// factor of the head's Gram matrix W_o W_o^T.
class OutputFactors {
  public:
    /// Reads the output projections once; head_dim^2 n_embd operations per layer and head.
    OutputFactors(const Decoder & decoder, int32_t n_threads);
    /// |v W_o| of every query head and key. [n_head][n_tokens]
    [[nodiscard]] std::vector<float> norms(GraphRunner & runner, const DecoderConfig & config, const LayerKv & kv,
                                           int32_t il) const;

  private:
    std::vector<std::vector<float>> factors_;  // [n_layer][n_head][head_dim][head_dim]
};

/// What marks a file of probes: general.architecture and kvsieve.probes.version.
inline constexpr const char * kProbesArchitecture = "kvsieve-probes";
inline constexpr uint32_t kProbesVersion = 1;

/// A file of probes, mapped.
class ProbeFile {
  public:
    /// Throws Error{bad_input} that names what does not fit: not a file of probes, another model, wrong shapes, numbers
    /// out of range.
    ProbeFile(const std::filesystem::path & path, const DecoderConfig & config, const std::string & model_fingerprint);
    [[nodiscard]] std::span<const LayerProbes> layers() const { return layers_; }  ///< [n_layer]
    [[nodiscard]] int32_t n_probe() const { return n_probe_; }
    /// Recorded queries that the probes of a head stand for, and prompts that these are from.
    [[nodiscard]] uint32_t n_rows() const { return n_rows_; }
    [[nodiscard]] int32_t n_samples() const { return n_samples_; }
    [[nodiscard]] std::string data_sha256() const { return file_.get_str("kvsieve.probes.data_sha256", ""); }
    [[nodiscard]] std::string fingerprint() const { return file_.fingerprint(); }

  private:
    GgufFile file_;
    Weights tensors_;
    int32_t n_probe_ = 0, n_samples_ = 0;
    uint32_t n_rows_ = 0;
    std::vector<LayerProbes> layers_;
};

/// What Traits::probes is computed with. Both must outlive the prefill.
struct ProbeSource {
    std::span<const LayerProbes> probes = {};  ///< [n_layer]; empty: the prompt's own last queries behind its image
    const OutputFactors * factors = nullptr;
};

/// Probes that stand for fewer recorded queries are not used, as if the model had none: answers of so few tokens say
/// less than the prompt's own queries.
inline constexpr uint32_t kMinProbeRows = 12;

/// Where a model has no probes, at most so many of the prompt's last queries take their place.
inline constexpr int32_t kOwnProbes = 256;

}  // namespace kvsieve
