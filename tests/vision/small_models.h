// SPDX-License-Identifier: MIT
// Small models with random or zero weights, for tests of what happens to files and positions.
#pragma once

#include <fstream>
#include <map>
#include <string>

#include "gguf/gguf_file.h"
#include "gguf/model_writer.h"
#include "support/gguf_writer.h"

namespace kvsieve::test {

constexpr int32_t kSmallWidth = 64;

inline void write_small_model(const std::filesystem::path & path, bool biases = false) {
    ModelShape shape;
    shape.n_layer = 1;
    shape.n_embd = kSmallWidth;
    shape.n_head = shape.n_head_kv = 2;
    shape.n_ff = 96;
    shape.n_vocab = kMinModelVocab;
    shape.biases = biases;
    std::ofstream file(path, std::ios::binary);
    write_random_model(shape, [&](const void * data, size_t n) {
        file.write(static_cast<const char *>(data), static_cast<std::streamsize>(n));
    });
}

/// The same under the name of an architecture with M-RoPE.
inline void write_mrope_model(const std::filesystem::path & path) {
    write_small_model(path, true);
    GgufCopy copy(path);
    gguf_context * meta = copy.meta();
    gguf_set_val_str(meta, "general.architecture", "qwen2vl");
    for (const char * key : {"context_length", "embedding_length", "block_count", "feed_forward_length",
                             "attention.head_count", "attention.head_count_kv"}) {
        const int64_t i = gguf_find_key(meta, (std::string("llama.") + key).c_str());
        gguf_set_val_u32(meta, (std::string("qwen2vl.") + key).c_str(), gguf_get_val_u32(meta, i));
    }
    gguf_set_val_f32(meta, "qwen2vl.attention.layer_norm_rms_epsilon", 1e-5F);
    const int32_t sections[] = {4, 6, 6, 0};
    gguf_set_arr_data(meta, "qwen2vl.rope.dimension_sections", GGUF_TYPE_INT32, sections, 4);
    for (const std::string & name : copy.tensor_names()) {
        const bool wanted = name.find("attn_q") != std::string::npos || name.find("attn_k") != std::string::npos ||
                            name.find("attn_v") != std::string::npos;
        if (name.ends_with(".bias") && !wanted) {
            copy.drop(name);
        }
    }
    copy.write(path);
}

/// The form of `source` (projector mlp) with one layer, images of 28 and patches of 14 pixels, and zero weights.
inline void write_small_mmproj(const std::filesystem::path & source, const std::filesystem::path & path) {
    const GgufFile big(source);
    const std::map<int64_t, int64_t> dims = {
        {big.get_u32("clip.vision.feed_forward_length"), 96},
        {big.get_u32("clip.vision.embedding_length"), kSmallWidth},
        {big.get_u32("clip.vision.patch_size"), 14},
    };
    const std::map<std::string, std::array<int64_t, 4>> shapes = {
        {"v.position_embd.weight", {kSmallWidth, big.find("v.class_embd") != nullptr ? 5 : 4, 1, 1}},
        {"mm.0.weight", {kSmallWidth, 80, 1, 1}},
        {"mm.0.bias", {80, 1, 1, 1}},
        {"mm.2.weight", {80, kSmallWidth, 1, 1}},
        {"mm.2.bias", {kSmallWidth, 1, 1, 1}},
    };
    GgufCopy copy(source);
    for (const GgufTensor & tensor : big.tensors()) {
        if (tensor.name.starts_with("v.blk.") && !tensor.name.starts_with("v.blk.0.")) {
            copy.drop(tensor.name);
            continue;
        }
        std::array<int64_t, 4> ne = tensor.ne;
        for (int64_t & n : ne) {
            n = dims.contains(n) ? dims.at(n) : n;
        }
        copy.replace(tensor.name, tensor.type, shapes.contains(tensor.name) ? shapes.at(tensor.name) : ne);
    }
    gguf_context * meta = copy.meta();
    gguf_set_val_u32(meta, "clip.vision.embedding_length", kSmallWidth);
    gguf_set_val_u32(meta, "clip.vision.projection_dim", kSmallWidth);
    gguf_set_val_u32(meta, "clip.vision.feed_forward_length", 96);
    gguf_set_val_u32(meta, "clip.vision.attention.head_count", 2);
    gguf_set_val_u32(meta, "clip.vision.block_count", 1);
    gguf_set_val_u32(meta, "clip.vision.image_size", 28);
    gguf_set_val_u32(meta, "clip.vision.patch_size", 14);
    const int32_t layer = 1;
    gguf_set_arr_data(meta, "clip.vision.feature_layer", GGUF_TYPE_INT32, &layer, 1);
    copy.write(path);
}

/// A small mmproj turned into the form of Qwen2-VL's.
inline void write_small_qwen_mmproj(const std::filesystem::path & small, const std::filesystem::path & path) {
    GgufCopy copy(small);
    gguf_set_val_str(copy.meta(), "clip.projector_type", "qwen2vl_merger");
    gguf_remove_key(copy.meta(), "clip.vision.feature_layer");
    for (const char * name : {"v.position_embd.weight", "v.class_embd", "v.patch_embd.bias"}) {
        copy.drop(name);
    }
    copy.add("v.patch_embd.weight.1", GGML_TYPE_F16, {14, 14, 3, kSmallWidth});
    copy.replace("mm.0.weight", GGML_TYPE_F16, {4 * kSmallWidth, 80, 1, 1});
    copy.write(path);
}

}  // namespace kvsieve::test
