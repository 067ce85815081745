// SPDX-License-Identifier: MIT
// Every capability of architecture "llama" against libllama, on random models: prefill of several chunks, decoding
// token by token, a follow-up of several tokens.
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "graph/tiny_run.h"
#include "kvsieve/error.h"
#include "support/libllama_reference.h"
#include "support/logits.h"
#include "support/random_model.h"

namespace kvsieve::test {
namespace {

constexpr size_t kPrompt = 600;  // two chunks
constexpr size_t kDecoded = 12;
constexpr size_t kFollowUp = 70;

struct Variant {
    std::string name;
    std::function<void(ModelShape &)> shape = [](ModelShape &) {};
    std::function<void(GgufEdit &)> edit = {};
    int32_t n_ctx = 1024;
};

ModelShape small_shape() {
    ModelShape shape;
    shape.n_layer = 2;
    shape.n_embd = 128;
    shape.n_head = 4;
    shape.n_head_kv = 2;
    shape.head_dim = 32;
    shape.n_ff = 192;
    shape.n_vocab = 300;
    shape.n_ctx = 1024;
    return shape;
}

void fuse_qkv(GgufEdit & file) {
    for (int il = 0; il < 2; ++il) {
        const std::string blk = "blk." + std::to_string(il) + ".";
        for (const std::string part : {".weight", ".bias"}) {
            file.fuse({blk + "attn_q" + part, blk + "attn_k" + part, blk + "attn_v" + part}, blk + "attn_qkv" + part);
        }
    }
}

std::vector<float> ramp(size_t n, float from, float to) {
    std::vector<float> out(n);
    for (size_t i = 0; i < n; ++i) {
        out[i] = from + (to - from) * static_cast<float>(i) / static_cast<float>(n - 1);
    }
    return out;
}

void longrope(GgufEdit & file) {
    file.set("llama.rope.scaling.type", std::string("longrope"));
    file.set("llama.rope.scaling.original_context_length", 512U);
    file.set("llama.rope.scaling.attn_factor", 1.2F);
    file.add_vector("rope_factors_long.weight", ramp(16, 1.0F, 30.0F));
    file.add_vector("rope_factors_short.weight", ramp(16, 1.0F, 1.5F));
}

const Variant kVariants[] = {
    {"grouped_heads"},
    {"plain_heads", [](ModelShape & s) { s.n_head_kv = 4; }},
    {"one_kv_head", [](ModelShape & s) { s.n_head_kv = 1; }},
    {"head_size_beside_width", [](ModelShape & s) { s.head_dim = 64; }},
    {"tied_output", [](ModelShape & s) { s.tied_output = true; }},
    {"biases", [](ModelShape & s) { s.biases = true; }},
    {"fused_qkv", [](ModelShape & s) { s.biases = true; }, fuse_qkv},
    {"rope_freqs", [](ModelShape & s) { s.rope_freqs = true; }},
    {"rope_base", [](ModelShape & s) { s.rope_freq_base = 500000.0F; }},
    {"rope_linear",
     [](ModelShape & s) {
         s.rope_scaling = RopeScaling::linear;
         s.rope_factor = 4.0F;
     }},
    {"rope_linear_old_key", [](ModelShape &) {}, [](GgufEdit & file) { file.set("llama.rope.scale_linear", 2.0F); }},
    {"rope_type_none", [](ModelShape &) {},
     [](GgufEdit & file) {
         file.set("llama.rope.scaling.type", std::string("none"));
         file.set("llama.rope.scaling.factor", 4.0F);
     }},
    {"rope_yarn",
     [](ModelShape & s) {
         s.rope_scaling = RopeScaling::yarn;
         s.rope_factor = 4.0F;
     }},
    {"rope_yarn_parameters",
     [](ModelShape & s) {
         s.rope_scaling = RopeScaling::yarn;
         s.rope_factor = 8.0F;
     },
     [](GgufEdit & file) {
         file.set("llama.rope.scaling.yarn_ext_factor", 0.7F);
         file.set("llama.rope.scaling.yarn_attn_factor", 1.3F);
         file.set("llama.rope.scaling.yarn_beta_fast", 16.0F);
         file.set("llama.rope.scaling.yarn_beta_slow", 2.0F);
         file.set("llama.rope.scaling.attn_factor", 0.9F);
     }},
    {"rope_yarn_log_multiplier",
     [](ModelShape & s) {
         s.rope_scaling = RopeScaling::yarn;
         s.rope_factor = 8.0F;
     },
     [](GgufEdit & file) { file.set("llama.rope.scaling.yarn_log_multiplier", 0.5F); }},
    {"longrope_long", [](ModelShape &) {}, longrope},
    {"longrope_short", [](ModelShape &) {},
     [](GgufEdit & file) {
         longrope(file);
         file.set("llama.rope.scaling.original_context_length", 1024U);
     }},
    {"q8_0", [](ModelShape & s) { s.type = GGML_TYPE_Q8_0; }},
    {"q4_1", [](ModelShape & s) { s.type = GGML_TYPE_Q4_1; }},
    {"bf16", [](ModelShape & s) { s.type = GGML_TYPE_BF16; }},
    {"q6_K",
     [](ModelShape & s) {
         s.type = GGML_TYPE_Q6_K;
         s.n_embd = 256;
         s.n_head = 8;
         s.n_ff = 256;
     }},
};

class AgainstLibllama : public testing::TestWithParam<Variant> {};

Logits reference_logits(const ReferenceModel & model, bool flash, const std::vector<int32_t> & tokens, int32_t n_ctx) {
    ReferenceContext context(model, flash, GGML_TYPE_F16, static_cast<uint32_t>(n_ctx));
    const std::span<const int32_t> all(tokens);
    Logits out{context.feed(all.first(kPrompt))};
    for (size_t i = 0; i < kDecoded; ++i) {
        out.push_back(context.feed(all.subspan(kPrompt + i, 1)));
    }
    out.push_back(context.feed(all.subspan(kPrompt + kDecoded)));
    return out;
}

TEST_P(AgainstLibllama, PrefillDecodingAndFollowUp) {
    const Variant & variant = GetParam();
    ModelShape shape = small_shape();
    variant.shape(shape);
    TempFile file(".gguf");
    write_model(shape, file.path(), variant.edit);
    const std::vector<int32_t> tokens = some_tokens(kPrompt + kDecoded + kFollowUp, 1, shape.n_vocab);
    const std::span<const int32_t> all(tokens);

    TinyRun run(file.path(), KvType::f16, true, variant.n_ctx);
    Logits ours{run.prefill(all.first(kPrompt))};
    for (size_t i = 0; i < kDecoded; ++i) {
        ours.push_back(run.extend(all.subspan(kPrompt + i, 1)));
    }
    ours.push_back(run.extend(all.subspan(kPrompt + kDecoded)));

    const ReferenceModel model(file.path(), {}, 1);
    const Logits plain = reference_logits(model, false, tokens, variant.n_ctx);
    const Logits flash = reference_logits(model, true, tokens, variant.n_ctx);
    const Parity parity = compare(ours, plain, flash);
    RecordProperty("bound", std::to_string(parity.bound));
    RecordProperty("difference", std::to_string(parity.difference));
    EXPECT_GT(parity.bound, 0.0);
    EXPECT_LT(parity.bound, 0.1) << "the references disagree too much to say anything";
    EXPECT_LE(parity.difference, parity.bound);
    EXPECT_EQ(parity.n_wrong, 0U);
    EXPECT_GE(parity.decided(), 0.75);  // random logits lie close together
}

INSTANTIATE_TEST_SUITE_P(Variants, AgainstLibllama, testing::ValuesIn(kVariants),
                         [](const auto & variant) { return variant.param.name; });

}  // namespace
}  // namespace kvsieve::test
