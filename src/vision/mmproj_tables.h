// SPDX-License-Identifier: MIT
// What libmtmd 0.5.0-dev reads of an mmproj file.
#pragma once

#include <array>
#include <string_view>

namespace kvsieve {

struct KeyType {
    std::string_view key;  // behind "clip.", "clip.vision." or "clip.audio."
    std::string_view type;
};

// libmtmd asserts these types while it reads; arrays it checks itself.
inline constexpr std::array kKeyTypes = {
    KeyType{"has_vision_encoder", "bool"},
    KeyType{"has_audio_encoder", "bool"},
    KeyType{"has_gen_audio_encoder", "bool"},
    KeyType{"use_gelu", "bool"},
    KeyType{"use_silu", "bool"},
    KeyType{"projector_type", "str"},
    KeyType{"mm_patch_merge_type", "str"},
    KeyType{"attention.layer_norm_epsilon", "f32"},
    KeyType{"swiglu_clamp", "f32"},
    KeyType{"minicpmv_version", "i32"},
    KeyType{"minicpmv_query_num", "u32"},
    KeyType{"embedding_length", "u32"},
    KeyType{"feed_forward_length", "u32"},
    KeyType{"block_count", "u32"},
    KeyType{"projection_dim", "u32"},
    KeyType{"attention.head_count", "u32"},
    KeyType{"attention.head_count_kv", "u32"},
    KeyType{"attention.head_dim", "u32"},
    KeyType{"image_size", "u32"},
    KeyType{"image_min_pixels", "u32"},
    KeyType{"image_max_pixels", "u32"},
    KeyType{"preproc_min_tiles", "u32"},
    KeyType{"preproc_max_tiles", "u32"},
    KeyType{"preproc_image_size", "u32"},
    KeyType{"patch_size", "u32"},
    KeyType{"projector.scale_factor", "u32"},
    KeyType{"projector.query_side", "u32"},
    KeyType{"projector.window_side", "u32"},
    KeyType{"spatial_merge_size", "u32"},
    KeyType{"n_wa_pattern", "u32"},
    KeyType{"window_size", "u32"},
    KeyType{"sam.head_count", "u32"},
    KeyType{"sam.block_count", "u32"},
    KeyType{"sam.embedding_length", "u32"},
    KeyType{"expert_used_count", "u32"},
    KeyType{"num_mel_bins", "u32"},
    KeyType{"projector.stack_factor", "u32"},
    KeyType{"projector.window_size", "u32"},
    KeyType{"projector.downsample_rate", "u32"},
    KeyType{"projector.head_count", "u32"},
    KeyType{"chunk_size", "u32"},
    KeyType{"conv_kernel_size", "u32"},
    KeyType{"max_pos_emb", "u32"},
    KeyType{"rvq.num_quantizers", "u32"},
    KeyType{"local_block_count", "u32"},
    KeyType{"local_group_size", "u32"},
    KeyType{"subsampling_factor", "u32"},
};

// Projectors of images that libmtmd 0.5.0-dev knows.
inline constexpr std::array<std::string_view, 39> kVisionProjectors = {
    "mlp",     "ldp",       "ldpv2",       "resampler",    "adapter",        "qwen2vl_merger", "qwen2.5vl_merger",
    "gemma3",  "gemma3nv",  "gemma4v",     "gemma4uv",     "phi4",           "idefics3",       "qwen3vl_merger",
    "ling3vl", "step3vl",   "pixtral",     "internvl",     "llama4",         "qwen2.5o",       "lfm2",
    "kimivl",  "paddleocr", "lightonocr",  "cogvlm",       "janus_pro",      "dots_ocr",       "dots3note_v",
    "glm4v",   "glm5v",     "deepseekocr", "deepseekocr2", "nemotron_v2_vl", "youtuvl",        "kimik25",
    "yasa2",   "exaone4_5", "minicpmv4_6", "mimovl",
};
// One grid of tokens per image, a row of patches after the other, where the image is not cut into tiles.
inline constexpr std::array<std::string_view, 6> kGridProjectors = {"mlp",      "gemma3",    "idefics3",
                                                                    "internvl", "janus_pro", "kimivl"};
// Their tokens depend on what stands before the image, so an image cannot be encoded by itself.
inline constexpr std::array<std::string_view, 2> kPlacedProjectors = {"deepseek4v", "hunyuanvl"};

}  // namespace kvsieve
