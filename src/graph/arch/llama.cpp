// SPDX-License-Identifier: MIT
// Architecture "llama": RMSNorm, rotary attention with grouped heads, SwiGLU. Llama 1-3, Mistral, SmolLM2, Vicuna
// (LLaVA) and others are stored under this name.
#include <cmath>
#include <string>
#include <vector>

#include "graph/arch.h"
#include "kvsieve/error.h"

namespace kvsieve {
namespace {

struct LlamaLayer {
    ggml_tensor * attn_norm = nullptr;  // [n_embd]
    ggml_tensor * wqkv = nullptr;       // [n_embd, (n_head + 2 n_head_kv) head_dim], instead of wq, wk, wv
    ggml_tensor * wq = nullptr;         // [n_embd, n_head head_dim]
    ggml_tensor * wk = nullptr;         // [n_embd, n_head_kv head_dim]
    ggml_tensor * wv = nullptr;
    ggml_tensor * bqkv = nullptr;
    ggml_tensor * bq = nullptr;
    ggml_tensor * bk = nullptr;
    ggml_tensor * bv = nullptr;
    ggml_tensor * wo = nullptr;          // [n_head head_dim, n_embd]
    ggml_tensor * wo_in_file = nullptr;  // the same, in the file's order
    ggml_tensor * bo = nullptr;
    ggml_tensor * ffn_norm = nullptr;
    ggml_tensor * gate = nullptr;  // [n_embd, n_ff]
    ggml_tensor * up = nullptr;
    ggml_tensor * down = nullptr;  // [n_ff, n_embd]
    ggml_tensor * gate_b = nullptr;
    ggml_tensor * up_b = nullptr;
    ggml_tensor * down_b = nullptr;
    ggml_tensor * rope_factor = nullptr;  // [head_dim / 2] or none
};

class Llama final : public Decoder {
  public:
    Llama(const GgufFile & file, Weights & weights, int32_t n_ctx) {
        config_ = read_decoder_config(file, "llama");
        if (file.get_u32("llama.expert_count", 0) > 0) {
            throw Error(ErrorCode::bad_input,
                        file.path().string() +
                            ": a mixture of experts is not supported, expected llama.expert_count 0, "
                            "got " +
                            std::to_string(file.get_u32("llama.expert_count", 0)));
        }
        const int64_t embd = config_.n_embd;
        const int64_t q_dim = static_cast<int64_t>(config_.n_head) * config_.head_dim;
        const int64_t kv = static_cast<int64_t>(config_.n_head_kv) * config_.head_dim;
        const int64_t ff = config_.n_ff;

        tok_embd_ = weights.require("token_embd.weight", {embd, config_.n_vocab});
        output_norm_ = weights.require("output_norm.weight", {embd});
        output_ = weights.optional_matrix("output.weight", embd, config_.n_vocab);
        if (output_ == nullptr) {
            output_ = weights.require_matrix("token_embd.weight", embd, config_.n_vocab);
        }
        const std::string scaling = file.get_str("llama.rope.scaling.type", "linear");
        // one table serves all layers; long contexts may have their own
        const int64_t n_rope = config_.rope.n_dims / 2;
        ggml_tensor * common = weights.optional("rope_freqs.weight", {n_rope});
        if (scaling == "longrope") {
            ggml_tensor * factors_long = weights.optional("rope_factors_long.weight", {n_rope});
            ggml_tensor * factors_short = weights.optional("rope_factors_short.weight", {n_rope});
            common = (n_ctx > 0 ? n_ctx : config_.n_ctx_train) > config_.rope.n_ctx_orig ? factors_long : factors_short;
        }

        layers_.resize(static_cast<size_t>(config_.n_layer));
        for (size_t il = 0; il < layers_.size(); ++il) {
            LlamaLayer & layer = layers_[il];
            const std::string blk = "blk." + std::to_string(il) + ".";
            layer.attn_norm = weights.require(blk + "attn_norm.weight", {embd});
            layer.wqkv = weights.optional_matrix(blk + "attn_qkv.weight", embd, q_dim + 2 * kv);
            if (layer.wqkv == nullptr) {
                layer.wq = weights.require_matrix(blk + "attn_q.weight", embd, q_dim);
                layer.wk = weights.require_matrix(blk + "attn_k.weight", embd, kv);
                layer.wv = weights.require_matrix(blk + "attn_v.weight", embd, kv);
            } else {
                layer.bqkv = weights.optional(blk + "attn_qkv.bias", {q_dim + 2 * kv});
            }
            layer.bq = weights.optional(blk + "attn_q.bias", {q_dim});
            layer.bk = weights.optional(blk + "attn_k.bias", {kv});
            layer.bv = weights.optional(blk + "attn_v.bias", {kv});
            layer.wo = weights.require_matrix(blk + "attn_output.weight", q_dim, embd);
            layer.wo_in_file = weights.require(blk + "attn_output.weight", {q_dim, embd});
            layer.bo = weights.optional(blk + "attn_output.bias", {embd});
            layer.ffn_norm = weights.require(blk + "ffn_norm.weight", {embd});
            layer.gate = weights.require_matrix(blk + "ffn_gate.weight", embd, ff);
            layer.up = weights.require_matrix(blk + "ffn_up.weight", embd, ff);
            layer.down = weights.require_matrix(blk + "ffn_down.weight", ff, embd);
            layer.gate_b = weights.optional(blk + "ffn_gate.bias", {ff});
            layer.up_b = weights.optional(blk + "ffn_up.bias", {ff});
            layer.down_b = weights.optional(blk + "ffn_down.bias", {embd});
            layer.rope_factor = weights.optional(blk + "rope_freqs.weight", {n_rope});
            if (layer.rope_factor == nullptr) {
                layer.rope_factor = common;
            }
        }
        weights.check_all_used("llama");
    }

    ggml_tensor * embed(const GraphBuilder & b, ggml_tensor * ids) const override {
        return ggml_get_rows(b.ctx, tok_embd_, ids);
    }

    Qkv qkv(const GraphBuilder & b, int32_t il, ggml_tensor * residual, ggml_tensor * positions) const override {
        const LlamaLayer & layer = layers_[static_cast<size_t>(il)];
        const int64_t n = residual->ne[1];
        ggml_tensor * x = rms_norm(b, residual, layer.attn_norm, config_.norm_eps);
        Qkv out;
        if (layer.wqkv != nullptr) {
            ggml_tensor * all = linear(b, x, layer.wqkv, layer.bqkv);
            const size_t row = all->nb[1];
            const size_t head = static_cast<size_t>(config_.head_dim) * sizeof(float);
            const auto part = [&](int32_t first, int32_t count, ggml_tensor * bias) {
                ggml_tensor * view = ggml_view_2d(b.ctx, all, static_cast<int64_t>(count) * config_.head_dim, n, row,
                                                  head * static_cast<size_t>(first));
                view = ggml_cont(b.ctx, view);
                return bias != nullptr ? ggml_add(b.ctx, view, bias) : view;
            };
            out.q = part(0, config_.n_head, layer.bq);
            out.k = part(config_.n_head, config_.n_head_kv, layer.bk);
            out.v = part(config_.n_head + config_.n_head_kv, config_.n_head_kv, layer.bv);
        } else {
            out.q = linear(b, x, layer.wq, layer.bq);
            out.k = linear(b, x, layer.wk, layer.bk);
            out.v = linear(b, x, layer.wv, layer.bv);
        }
        out.q = ggml_reshape_3d(b.ctx, out.q, config_.head_dim, config_.n_head, n);
        out.k = ggml_reshape_3d(b.ctx, out.k, config_.head_dim, config_.n_head_kv, n);
        out.v = ggml_reshape_3d(b.ctx, out.v, config_.head_dim, config_.n_head_kv, n);
        out.q_unrotated = out.q;
        out.q = rope(b, config_.rope, out.q, positions, layer.rope_factor);
        out.k = rope(b, config_.rope, out.k, positions, layer.rope_factor);
        return out;
    }

    [[nodiscard]] const float * rope_factors(int32_t il) const override {
        const ggml_tensor * factors = layers_[static_cast<size_t>(il)].rope_factor;
        return factors != nullptr ? static_cast<const float *>(factors->data) : nullptr;
    }

    [[nodiscard]] const ggml_tensor * output_projection(int32_t il) const override {
        return layers_[static_cast<size_t>(il)].wo_in_file;
    }

    ggml_tensor * finish_layer(const GraphBuilder & b, int32_t il, ggml_tensor * residual,
                               ggml_tensor * heads) const override {
        const LlamaLayer & layer = layers_[static_cast<size_t>(il)];
        ggml_tensor * attention = ggml_add(b.ctx, linear(b, heads, layer.wo, layer.bo), residual);
        ggml_tensor * x = rms_norm(b, attention, layer.ffn_norm, config_.norm_eps);
        ggml_tensor * up = linear(b, x, layer.up, layer.up_b);
        ggml_tensor * gate = linear(b, x, layer.gate, layer.gate_b);
        ggml_tensor * hidden = ggml_swiglu_split(b.ctx, gate, up);
        return ggml_add(b.ctx, linear(b, hidden, layer.down, layer.down_b), attention);
    }

    ggml_tensor * logits(const GraphBuilder & b, ggml_tensor * residual) const override {
        return linear(b, rms_norm(b, residual, output_norm_, config_.norm_eps), output_, nullptr);
    }

  private:
    ggml_tensor * tok_embd_ = nullptr;     // [n_embd, n_vocab]
    ggml_tensor * output_norm_ = nullptr;  // [n_embd]
    ggml_tensor * output_ = nullptr;       // [n_embd, n_vocab], the embeddings where it is tied
    std::vector<LlamaLayer> layers_;
};

}  // namespace

std::unique_ptr<Decoder> make_llama(const GgufFile & file, Weights & weights, int32_t n_ctx) {
    return std::make_unique<Llama>(file, weights, n_ctx);
}

}  // namespace kvsieve
