// SPDX-License-Identifier: MIT
#include "graph/arch.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "graph/tile_product.h"
#include "kvsieve/error.h"

namespace kvsieve {
namespace {

constexpr std::array kArchitectures = {
    ArchInfo{"llama", make_llama},
};

[[noreturn]] void refuse(const GgufFile & file, const std::string & what) {
    throw Error(ErrorCode::bad_input, file.path().string() + ": " + what);
}

/// A value that must be the same in every layer.
int32_t same_in_all_layers(const GgufFile & file, const std::string & key, int32_t n_layer) {
    const auto values = file.get_u32_per_layer(key, static_cast<size_t>(n_layer));
    if (std::any_of(values.begin(), values.end(), [&](uint32_t v) { return v != values.front(); })) {
        refuse(file, key + " differs between layers, expected one value for all of them");
    }
    return static_cast<int32_t>(values.front());
}

void check_range(const GgufFile & file, const std::string & key, int64_t value, int64_t low, int64_t high) {
    if (value < low || value > high) {
        refuse(file, key + " is " + std::to_string(value) + ", expected " + std::to_string(low) + " to " +
                         std::to_string(high));
    }
}

RopeConfig read_rope(const GgufFile & file, const std::string & prefix, const DecoderConfig & config) {
    RopeConfig rope;
    rope.n_dims =
        static_cast<int32_t>(file.get_u32(prefix + "rope.dimension_count", static_cast<uint32_t>(config.head_dim)));
    if (rope.n_dims != config.head_dim) {
        refuse(file, prefix + "rope.dimension_count is " + std::to_string(rope.n_dims) + ", expected the head size " +
                         std::to_string(config.head_dim));
    }
    rope.mode = GGML_ROPE_TYPE_NORMAL;
    rope.freq_base = file.get_f32(prefix + "rope.freq_base", 10000.0F);
    rope.n_ctx_orig = static_cast<int32_t>(
        file.get_u32(prefix + "rope.scaling.original_context_length", static_cast<uint32_t>(config.n_ctx_train)));
    const std::string type = file.get_str(prefix + "rope.scaling.type", "linear");
    if (type != "none" && type != "linear" && type != "yarn" && type != "longrope") {
        refuse(file, prefix + "rope.scaling.type is \"" + type + "\", expected none, linear, yarn or longrope");
    }
    const float factor = file.has(prefix + "rope.scaling.factor") ? file.get_f32(prefix + "rope.scaling.factor")
                                                                  : file.get_f32(prefix + "rope.scale_linear", 0.0F);
    if (!std::isfinite(rope.freq_base) || rope.freq_base <= 0.0F || !std::isfinite(factor) || factor < 0.0F) {
        refuse(file, prefix + "rope.freq_base and rope.scaling.factor must be positive and finite");
    }
    rope.freq_scale = factor == 0.0F || type == "none" ? 1.0F : 1.0F / factor;
    // the yarn_* keys beside these are read by libllama for some other architectures only
    rope.ext_factor = type == "yarn" ? 1.0F : 0.0F;
    if (rope.ext_factor != 0.0F) {
        // libllama's convention: YaRN's magnitude factor is 1 here because ggml_rope_ext applies it itself
        const float scale = 1.0F / rope.freq_scale;
        rope.attn_factor = (scale <= 1.0F ? 1.0F : 0.1F * std::log(scale) + 1.0F) / (1.0F + 0.1F * std::log(scale));
    }
    rope.attn_factor *= file.get_f32(prefix + "rope.scaling.attn_factor", 1.0F);
    return rope;
}

}  // namespace

std::span<const ArchInfo> architectures() {
    return kArchitectures;
}

std::unique_ptr<Decoder> make_decoder(const GgufFile & file, Weights & weights, int32_t n_ctx) {
    const std::string name = file.get_str("general.architecture");
    for (const ArchInfo & info : kArchitectures) {
        if (info.name == name) {
            return info.make(file, weights, n_ctx);
        }
    }
    std::string known;
    for (const ArchInfo & info : kArchitectures) {
        known += (known.empty() ? "" : ", ") + std::string(info.name);
    }
    refuse(file, "architecture \"" + name + "\" is not supported, expected one of: " + known);
}

DecoderConfig read_decoder_config(const GgufFile & file, std::string_view arch) {
    const std::string prefix = std::string(arch) + ".";
    DecoderConfig config;
    const auto number = [&](const char * key, int64_t low, int64_t high) {
        const int64_t value = file.get_u32(prefix + key);
        check_range(file, prefix + key, value, low, high);
        return static_cast<int32_t>(value);
    };
    config.n_layer = number("block_count", 1, 4096);
    config.n_embd = number("embedding_length", 1, 1 << 20);
    config.n_ctx_train = number("context_length", 1, 1 << 28);
    config.n_ff = same_in_all_layers(file, prefix + "feed_forward_length", config.n_layer);
    config.n_head = same_in_all_layers(file, prefix + "attention.head_count", config.n_layer);
    config.n_head_kv = file.has(prefix + "attention.head_count_kv")
                           ? same_in_all_layers(file, prefix + "attention.head_count_kv", config.n_layer)
                           : config.n_head;
    check_range(file, prefix + "feed_forward_length", config.n_ff, 1, 1 << 24);
    check_range(file, prefix + "attention.head_count", config.n_head, 1, 4096);
    check_range(file, prefix + "attention.head_count_kv", config.n_head_kv, 1, config.n_head);
    if (config.n_head % config.n_head_kv != 0) {
        refuse(file, prefix + "attention.head_count is " + std::to_string(config.n_head) +
                         ", expected a multiple of the " + std::to_string(config.n_head_kv) + " KV heads");
    }
    if (config.n_embd % config.n_head != 0 && !file.has(prefix + "attention.key_length")) {
        refuse(file, prefix + "embedding_length is " + std::to_string(config.n_embd) + ", expected a multiple of the " +
                         std::to_string(config.n_head) + " heads");
    }
    const auto by_width = static_cast<uint32_t>(config.n_embd / config.n_head);
    const int64_t k_dim = file.get_u32(prefix + "attention.key_length", by_width);
    const int64_t v_dim = file.get_u32(prefix + "attention.value_length", by_width);
    check_range(file, prefix + "attention.key_length", k_dim, 2, 1024);
    if (k_dim != v_dim || k_dim % 2 != 0) {
        refuse(file, "keys have " + std::to_string(k_dim) + " and values " + std::to_string(v_dim) +
                         " elements per head, expected the same even number");
    }
    config.head_dim = static_cast<int32_t>(k_dim);
    config.norm_eps = file.get_f32(prefix + "attention.layer_norm_rms_epsilon");
    config.kq_scale = 1.0F / std::sqrt(static_cast<float>(config.head_dim));
    const GgufTensor * embeddings = file.find("token_embd.weight");
    if (embeddings == nullptr) {
        refuse(file, "the tensor token_embd.weight is missing");
    }
    config.n_vocab = static_cast<int32_t>(file.has("tokenizer.ggml.tokens")
                                              ? static_cast<int64_t>(file.array_size("tokenizer.ggml.tokens"))
                                              : embeddings->ne[1]);
    config.rope = read_rope(file, prefix, config);
    return config;
}

ggml_tensor * linear(const GraphBuilder & b, ggml_tensor * x, ggml_tensor * w, ggml_tensor * bias) {
    ggml_tensor * y = is_in_tiles(*w) ? tile_product(b, w, x) : ggml_mul_mat(b.ctx, w, x);
    return bias != nullptr ? ggml_add(b.ctx, y, bias) : y;
}

ggml_tensor * rms_norm(const GraphBuilder & b, ggml_tensor * x, ggml_tensor * w, float eps) {
    return ggml_mul(b.ctx, ggml_rms_norm(b.ctx, x, eps), w);
}

ggml_tensor * rope(const GraphBuilder & b, const RopeConfig & config, ggml_tensor * x, ggml_tensor * positions,
                   ggml_tensor * factors) {
    return ggml_rope_ext(b.ctx, x, positions, factors, config.n_dims, config.mode, config.n_ctx_orig, config.freq_base,
                         config.freq_scale, config.ext_factor, config.attn_factor, config.beta_fast, config.beta_slow);
}

}  // namespace kvsieve
