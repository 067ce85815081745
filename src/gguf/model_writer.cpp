// SPDX-License-Identifier: MIT
#include "gguf/model_writer.h"

#include <gguf.h>
#include <strings.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <span>
#include <thread>

#include "gguf/byte_vocabulary.h"
#include "kvsieve/error.h"

namespace kvsieve {
namespace {

constexpr size_t kBlockBytes = size_t{4} << 20U;  // of f32 values, generated and quantised at a time

constexpr std::array kWeightTypes{
    GGML_TYPE_F32,   GGML_TYPE_F16,     GGML_TYPE_BF16,  GGML_TYPE_Q8_0,   GGML_TYPE_Q4_0,
    GGML_TYPE_Q4_1,  GGML_TYPE_Q5_0,    GGML_TYPE_Q5_1,  GGML_TYPE_Q2_K,   GGML_TYPE_Q3_K,
    GGML_TYPE_Q4_K,  GGML_TYPE_Q5_K,    GGML_TYPE_Q6_K,  GGML_TYPE_IQ4_NL, GGML_TYPE_IQ4_XS,
    GGML_TYPE_IQ3_S, GGML_TYPE_IQ3_XXS, GGML_TYPE_TQ1_0, GGML_TYPE_TQ2_0,  GGML_TYPE_MXFP4,
};

[[noreturn]] void refuse(const std::string & sentence) {
    throw Error(ErrorCode::invalid_argument, sentence);
}

void check_range(const char * what, int64_t value, int64_t least, int64_t most) {
    if (value < least || value > most) {
        refuse(std::string("the ") + what + " must be from " + std::to_string(least) + " to " + std::to_string(most) +
               ", not " + std::to_string(value));
    }
}

/// How a tensor is filled.
struct Fill {
    float scale = 0.0F;  ///< standard deviation of uniform values around 0
    float from = 0.0F;   ///< with scale = 0: a ramp over a row
    float to = 0.0F;
};

constexpr Fill constant(float value) {
    return {.scale = 0.0F, .from = value, .to = value};
}
constexpr Fill random(float scale) {
    return {.scale = scale};
}

struct TensorSpec {
    std::string name;
    ggml_type type;
    int64_t n_col;  ///< ne[0]
    int64_t n_row;
    Fill fill;
};

std::vector<TensorSpec> tensor_list(const ModelShape & s) {
    std::vector<TensorSpec> list;
    const int64_t n_q = int64_t{s.n_head} * s.head_dim;
    const int64_t n_kv = int64_t{s.n_head_kv} * s.head_dim;
    const auto inverse_root = [](int64_t n) { return 1.0F / std::sqrt(static_cast<float>(n)); };
    const auto vector = [&](const std::string & name, int64_t n, Fill fill) {
        list.push_back({name, GGML_TYPE_F32, n, 1, fill});
    };
    // A matrix [n_out, n_in] whose outputs have about `gain` times the size of its inputs.
    const auto matrix = [&](const std::string & name, int64_t n_in, int64_t n_out, float gain) {
        list.push_back({name + ".weight", s.type, n_in, n_out, random(gain * inverse_root(n_in))});
        if (s.biases && name.starts_with("blk.")) {
            vector(name + ".bias", n_out, random(0.1F));
        }
    };
    // What goes back into the residual stream is scaled down so that its size stays about 1 over all layers.
    const float residual_gain = inverse_root(int64_t{2} * s.n_layer);

    list.push_back(
        {"token_embd.weight", s.type, s.n_embd, s.n_vocab, random(s.tied_output ? inverse_root(s.n_embd) : 1.0F)});
    for (int32_t il = 0; il < s.n_layer; ++il) {
        const std::string blk = "blk." + std::to_string(il) + ".";
        vector(blk + "attn_norm.weight", s.n_embd, constant(1.0F));
        matrix(blk + "attn_q", s.n_embd, n_q, 1.0F);
        matrix(blk + "attn_k", s.n_embd, n_kv, 1.0F);
        matrix(blk + "attn_v", s.n_embd, n_kv, 1.0F);
        matrix(blk + "attn_output", n_q, s.n_embd, residual_gain);
        vector(blk + "ffn_norm.weight", s.n_embd, constant(1.0F));
        matrix(blk + "ffn_gate", s.n_embd, s.n_ff, 1.0F);
        matrix(blk + "ffn_up", s.n_embd, s.n_ff, 1.0F);
        matrix(blk + "ffn_down", s.n_ff, s.n_embd, residual_gain);
    }
    vector("output_norm.weight", s.n_embd, constant(1.0F));
    if (!s.tied_output) {
        matrix("output", s.n_embd, s.n_vocab, 1.0F);
    }
    if (s.rope_freqs) {
        vector("rope_freqs.weight", s.head_dim / 2, Fill{.from = 1.0F, .to = 8.0F});
    }
    return list;
}

using GgufPtr = std::unique_ptr<gguf_context, decltype(&gguf_free)>;
using GgmlPtr = std::unique_ptr<ggml_context, decltype(&ggml_free)>;

void set_texts(gguf_context * gguf, const char * key, const std::vector<std::string> & texts) {
    std::vector<const char *> pointers;
    pointers.reserve(texts.size());
    for (const std::string & text : texts) {
        pointers.push_back(text.c_str());
    }
    gguf_set_arr_str(gguf, key, pointers.data(), pointers.size());
}

void set_tokenizer(gguf_context * gguf, int32_t n_vocab) {
    const ByteVocabulary vocabulary = make_byte_vocabulary(n_vocab);
    gguf_set_val_str(gguf, "tokenizer.ggml.model", "gpt2");
    gguf_set_val_str(gguf, "tokenizer.ggml.pre", "qwen2");
    set_texts(gguf, "tokenizer.ggml.tokens", vocabulary.tokens);
    gguf_set_arr_data(gguf, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, vocabulary.types.data(),
                      vocabulary.types.size());
    set_texts(gguf, "tokenizer.ggml.merges", vocabulary.merges);
    gguf_set_val_u32(gguf, "tokenizer.ggml.padding_token_id", ByteVocabulary::kPad);
    gguf_set_val_u32(gguf, "tokenizer.ggml.bos_token_id", ByteVocabulary::kBos);
    gguf_set_val_u32(gguf, "tokenizer.ggml.eos_token_id", ByteVocabulary::kImEnd);
    gguf_set_val_bool(gguf, "tokenizer.ggml.add_bos_token", true);
    gguf_set_val_bool(gguf, "tokenizer.ggml.add_eos_token", false);
    gguf_set_val_str(gguf, "tokenizer.chat_template", ByteVocabulary::kChatTemplate);
}

/// Metadata and tensor infos, without data.
GgufPtr make_header(const ModelShape & s, std::span<const TensorSpec> tensors) {
    GgufPtr gguf(gguf_init_empty(), gguf_free);
    gguf_context * g = gguf.get();
    const std::string name = "random " + std::to_string(s.n_layer) + "x" + std::to_string(s.n_embd);
    const auto u32 = [](int32_t value) { return static_cast<uint32_t>(value); };
    gguf_set_val_str(g, "general.architecture", "llama");
    gguf_set_val_str(g, "general.name", name.c_str());
    gguf_set_val_u32(g, "general.quantization_version", GGML_QNT_VERSION);
    gguf_set_val_u32(g, "llama.block_count", u32(s.n_layer));
    gguf_set_val_u32(g, "llama.context_length", u32(s.n_ctx));
    gguf_set_val_u32(g, "llama.embedding_length", u32(s.n_embd));
    gguf_set_val_u32(g, "llama.feed_forward_length", u32(s.n_ff));
    gguf_set_val_u32(g, "llama.attention.head_count", u32(s.n_head));
    gguf_set_val_u32(g, "llama.attention.head_count_kv", u32(s.n_head_kv));
    gguf_set_val_u32(g, "llama.attention.key_length", u32(s.head_dim));
    gguf_set_val_u32(g, "llama.attention.value_length", u32(s.head_dim));
    gguf_set_val_f32(g, "llama.attention.layer_norm_rms_epsilon", 1e-5F);
    gguf_set_val_u32(g, "llama.rope.dimension_count", u32(s.head_dim));
    gguf_set_val_f32(g, "llama.rope.freq_base", s.rope_freq_base);
    gguf_set_val_u32(g, "llama.vocab_size", u32(s.n_vocab));
    if (s.rope_scaling != RopeScaling::none) {
        const auto original = static_cast<int32_t>(static_cast<float>(s.n_ctx) / s.rope_factor);
        gguf_set_val_str(g, "llama.rope.scaling.type", s.rope_scaling == RopeScaling::yarn ? "yarn" : "linear");
        gguf_set_val_f32(g, "llama.rope.scaling.factor", s.rope_factor);
        gguf_set_val_u32(g, "llama.rope.scaling.original_context_length", u32(std::max(original, 1)));
    }
    set_tokenizer(g, s.n_vocab);

    const ggml_init_params params{
        .mem_size = (tensors.size() + 1) * ggml_tensor_overhead(), .mem_buffer = nullptr, .no_alloc = true};
    const GgmlPtr context(ggml_init(params), ggml_free);
    for (const TensorSpec & spec : tensors) {
        ggml_tensor * tensor = spec.n_row == 1 ? ggml_new_tensor_1d(context.get(), spec.type, spec.n_col)
                                               : ggml_new_tensor_2d(context.get(), spec.type, spec.n_col, spec.n_row);
        ggml_set_name(tensor, spec.name.c_str());
        gguf_add_tensor(g, tensor);
    }
    return gguf;
}

uint64_t mix(uint64_t x) {  // splitmix64
    x += 0x9e3779b97f4a7c15U;
    x = (x ^ (x >> 30U)) * 0xbf58476d1ce4e5b9U;
    x = (x ^ (x >> 27U)) * 0x94d049bb133111ebU;
    return x ^ (x >> 31U);
}

/// A row depends on seed, tensor and row number only, so any thread may make it.
void fill_row(std::span<float> row, const Fill & fill, uint64_t key) {
    if (fill.scale == 0.0F) {
        const auto n = static_cast<float>(std::max<size_t>(row.size() - 1, 1));
        for (size_t i = 0; i < row.size(); ++i) {
            row[i] = fill.from + (fill.to - fill.from) * static_cast<float>(i) / n;
        }
        return;
    }
    const float width = fill.scale * 1.7320508F * 0x1p-31F;  // uniform on ±sqrt(3) has deviation 1
    uint64_t state = key;
    for (size_t i = 0; i < row.size(); i += 2) {
        const uint64_t bits = mix(state++);
        row[i] = width * static_cast<float>(static_cast<int32_t>(bits >> 32U));
        if (i + 1 < row.size()) {
            row[i + 1] = width * static_cast<float>(static_cast<int32_t>(bits & 0xffffffffU));
        }
    }
}

/// Rows [first, first + n) of a tensor, generated and quantised by several threads.
class BlockMaker {
  public:
    explicit BlockMaker(uint64_t seed)
        : seed_(seed), n_thread_(std::clamp(std::thread::hardware_concurrency(), 1U, 16U)) {}

    std::span<const uint8_t> make(const TensorSpec & spec, uint64_t index, int64_t first, int64_t n) {
        const size_t row_bytes = ggml_row_size(spec.type, spec.n_col);
        const auto n_row = static_cast<size_t>(n);
        const auto n_col = static_cast<size_t>(spec.n_col);
        values_.resize(n_row * n_col);
        bytes_.resize(n_row * row_bytes);
        const uint64_t tensor_key = mix(mix(seed_) ^ index);
        const auto work = [&](size_t from, size_t to) {
            for (size_t r = from; r < to; ++r) {
                const uint64_t key = mix(tensor_key + static_cast<uint64_t>(first) + r);
                fill_row(std::span(values_).subspan(r * n_col, n_col), spec.fill, key);
            }
            if (to > from) {
                ggml_quantize_chunk(spec.type, values_.data() + from * n_col, bytes_.data() + from * row_bytes, 0,
                                    static_cast<int64_t>(to - from), spec.n_col, nullptr);
            }
        };
        std::vector<std::jthread> threads;
        const size_t share = (n_row + n_thread_ - 1) / n_thread_;
        for (size_t from = share; from < n_row; from += share) {
            threads.emplace_back(work, from, std::min(from + share, n_row));
        }
        work(0, std::min(share, n_row));
        threads.clear();
        return bytes_;
    }

  private:
    uint64_t seed_;
    size_t n_thread_;
    std::vector<float> values_;
    std::vector<uint8_t> bytes_;
};

}  // namespace

std::vector<std::string> weight_type_names() {
    std::vector<std::string> names;
    names.reserve(std::size(kWeightTypes));
    for (const ggml_type type : kWeightTypes) {
        names.emplace_back(ggml_type_name(type));
    }
    return names;
}

ggml_type parse_weight_type(std::string_view name) {
    std::string known;
    for (const ggml_type type : kWeightTypes) {
        if (strcasecmp(std::string(name).c_str(), ggml_type_name(type)) == 0) {
            return type;
        }
        known += (known.empty() ? "" : ", ") + std::string(ggml_type_name(type));
    }
    refuse("unknown weight type '" + std::string(name) + "'; known are " + known);
}

void check_model_shape(const ModelShape & s) {
    check_range("number of layers", s.n_layer, 1, 512);
    check_range("width", s.n_embd, 2, 65536);
    check_range("number of heads", s.n_head, 1, 512);
    check_range("number of KV heads", s.n_head_kv, 1, s.n_head);
    check_range("head size", s.head_dim, 2, 1024);
    check_range("feed-forward width", s.n_ff, 1, 262144);
    check_range("vocabulary", s.n_vocab, kMinModelVocab, 1048576);
    check_range("context length", s.n_ctx, 1, 16777216);
    if (s.n_head % s.n_head_kv != 0) {
        refuse("the number of heads must be a multiple of the number of KV heads, but " + std::to_string(s.n_head) +
               " is not one of " + std::to_string(s.n_head_kv));
    }
    if (s.head_dim % 2 != 0) {
        refuse("the head size must be even, because RoPE turns pairs, not " + std::to_string(s.head_dim));
    }
    if (!(s.rope_freq_base > 0.0F) || !std::isfinite(s.rope_freq_base)) {
        refuse("the RoPE base must be a number above 0");
    }
    if (!(s.rope_factor >= 1.0F) || !std::isfinite(s.rope_factor)) {
        refuse("the RoPE scaling factor must be a number of at least 1");
    }
    if (s.rope_factor != 1.0F && s.rope_scaling == RopeScaling::none) {
        refuse("a RoPE scaling factor needs a kind of scaling, linear or yarn");
    }
    const int64_t block = ggml_blck_size(s.type);
    const auto check_row = [&](const char * what, int64_t n) {
        if (n % block != 0) {
            refuse("rows of type " + std::string(ggml_type_name(s.type)) + " come in blocks of " +
                   std::to_string(block) + ", but the " + what + " is " + std::to_string(n));
        }
    };
    check_row("width", s.n_embd);
    check_row("number of heads x head size", int64_t{s.n_head} * s.head_dim);
    check_row("feed-forward width", s.n_ff);
}

uint64_t random_model_bytes(const ModelShape & shape) {
    check_model_shape(shape);
    const std::vector<TensorSpec> tensors = tensor_list(shape);
    const GgufPtr header = make_header(shape, tensors);
    uint64_t bytes = gguf_get_meta_size(header.get());
    for (const TensorSpec & spec : tensors) {
        const uint64_t n = ggml_row_size(spec.type, spec.n_col) * static_cast<uint64_t>(spec.n_row);
        bytes += GGML_PAD(n, uint64_t{GGUF_DEFAULT_ALIGNMENT});
    }
    return bytes;
}

uint64_t kv_bytes_per_token_f16(const ModelShape & s) {
    return uint64_t{2} * sizeof(ggml_fp16_t) * static_cast<uint64_t>(s.n_layer) * static_cast<uint64_t>(s.n_head_kv) *
           static_cast<uint64_t>(s.head_dim);
}

void write_random_model(const ModelShape & shape, const ByteSink & sink, const WriteProgress & progress) {
    const auto total = static_cast<double>(random_model_bytes(shape));
    const std::vector<TensorSpec> tensors = tensor_list(shape);
    {
        const GgufPtr header = make_header(shape, tensors);
        std::vector<uint8_t> meta(gguf_get_meta_size(header.get()));
        gguf_get_meta_data(header.get(), meta.data());
        sink(meta.data(), meta.size());
    }
    static constexpr std::array<uint8_t, GGUF_DEFAULT_ALIGNMENT> kPadding{};
    ggml_quantize_init(shape.type);  // before the threads: it fills tables
    BlockMaker maker(shape.seed);
    double done = 0.0;
    for (size_t index = 0; index < tensors.size(); ++index) {
        const TensorSpec & spec = tensors[index];
        const auto rows_at_once = std::max<int64_t>(1, static_cast<int64_t>(kBlockBytes / sizeof(float)) / spec.n_col);
        size_t written = 0;
        for (int64_t first = 0; first < spec.n_row; first += rows_at_once) {
            if (progress && !progress(done / total)) {
                throw Error(ErrorCode::cancelled, "writing the model was stopped");
            }
            const auto block = maker.make(spec, index, first, std::min(rows_at_once, spec.n_row - first));
            sink(block.data(), block.size());
            written += block.size();
            done += static_cast<double>(block.size());
        }
        sink(kPadding.data(), GGML_PAD(written, size_t{GGUF_DEFAULT_ALIGNMENT}) - written);
    }
    ggml_quantize_free();
    if (progress) {
        progress(1.0);
    }
}

}  // namespace kvsieve
