// SPDX-License-Identifier: MIT
// Language models with random weights and a given shape, as GGUF: for tests and speed work.
#pragma once

#include <ggml.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace kvsieve {

enum class RopeScaling { none, linear, yarn };

/// Shape and content of a model of architecture `llama`. Equal shapes and seeds give equal files.
struct ModelShape {
    int32_t n_layer = 4;
    int32_t n_embd = 256;
    int32_t n_head = 8;
    int32_t n_head_kv = 8;
    int32_t head_dim = 32;
    int32_t n_ff = 1024;
    int32_t n_vocab = 512;
    int32_t n_ctx = 4096;
    ggml_type type = GGML_TYPE_F16;  ///< of all matrices; norms, biases and frequency factors are f32
    float rope_freq_base = 10000.0F;
    RopeScaling rope_scaling = RopeScaling::none;
    float rope_factor = 1.0F;  ///< of the scaling
    bool rope_freqs = false;   ///< per-frequency factors from 1 to 8, as Llama 3 has them
    bool biases = false;       ///< on every projection
    bool tied_output = false;  ///< the output matrix is the token embedding
    uint64_t seed = 0;
};

constexpr int32_t kMinModelVocab = 261;  ///< 5 special tokens and 256 bytes

/// Names of the types that weights can be written in ("f32", "q4_K", ...).
[[nodiscard]] std::vector<std::string> weight_type_names();
/// Ignores case; throws Error{invalid_argument} that lists the known names.
[[nodiscard]] ggml_type parse_weight_type(std::string_view name);

/// Throws Error{invalid_argument} for a shape that cannot be a model.
void check_model_shape(const ModelShape & shape);
/// Size of the file in bytes.
[[nodiscard]] uint64_t random_model_bytes(const ModelShape & shape);
/// f16 bytes of KV cache that one token takes.
[[nodiscard]] uint64_t kv_bytes_per_token_f16(const ModelShape & shape);

/// Takes the file's bytes in order.
using ByteSink = std::function<void(const void * data, size_t n)>;
/// Called between blocks of rows with the share done; false stops the writing with Error{cancelled}.
using WriteProgress = std::function<bool(double)>;

/// Writes the file block by block: memory stays below 64 MiB for any shape.
void write_random_model(const ModelShape & shape, const ByteSink & sink, const WriteProgress & progress = {});

}  // namespace kvsieve
