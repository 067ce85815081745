// SPDX-License-Identifier: MIT
#include "support/libllama_reference.h"

#include <mtmd-helper.h>
#include <mtmd.h>

#include <algorithm>
#include <stdexcept>

#include "text/upstream.h"

namespace kvsieve::test {
namespace {

constexpr int32_t kBatch = 512;

}  // namespace

std::string mtmd_marker() {
    return mtmd_default_marker();
}

ReferenceModel::ReferenceModel(const std::filesystem::path & model, const std::filesystem::path & mmproj,
                               int32_t n_threads)
    : n_threads_(n_threads) {
    ensure_upstream();
    llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = 0;
    model_ = llama_model_load_from_file(model.string().c_str(), params);
    if (model_ == nullptr) {
        throw std::runtime_error("libllama could not load " + model.string());
    }
    if (!mmproj.empty()) {
        mtmd_context_params vision = mtmd_context_params_default();
        vision.use_gpu = false;
        vision.print_timings = false;
        vision.warmup = false;
        vision.n_threads = n_threads;
        vision_ = mtmd_init_from_file(mmproj.string().c_str(), model_, vision);
        if (vision_ == nullptr) {
            llama_model_free(model_);
            throw std::runtime_error("libmtmd could not load " + mmproj.string());
        }
    }
}

ReferenceModel::~ReferenceModel() {
    mtmd_free(vision_);
    llama_model_free(model_);
}

int32_t ReferenceModel::n_vocab() const {
    return llama_vocab_n_tokens(llama_model_get_vocab(model_));
}

std::vector<int32_t> ReferenceModel::tokenize(const std::string & text, bool add_special) const {
    const llama_vocab * vocab = llama_model_get_vocab(model_);
    std::vector<int32_t> tokens(text.size() + 16);
    const int32_t n = llama_tokenize(vocab, text.data(), static_cast<int32_t>(text.size()), tokens.data(),
                                     static_cast<int32_t>(tokens.size()), add_special, true);
    if (n < 0) {
        throw std::runtime_error("libllama could not tokenize the text");
    }
    tokens.resize(static_cast<size_t>(n));
    return tokens;
}

bool ReferenceModel::is_eog(int32_t token) const {
    return llama_vocab_is_eog(llama_model_get_vocab(model_), token);
}

ReferenceContext::ReferenceContext(const ReferenceModel & model, bool flash_attention, ggml_type kv_type,
                                   uint32_t n_ctx)
    : model_(model) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = n_ctx;
    params.n_batch = kBatch;
    params.n_ubatch = kBatch;
    params.n_threads = model.n_threads();
    params.n_threads_batch = model.n_threads();
    params.flash_attn_type = flash_attention ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.type_k = kv_type;
    params.type_v = kv_type;
    params.offload_kqv = false;
    params.op_offload = false;
    context_ = llama_init_from_model(model.handle(), params);
    if (context_ == nullptr) {
        throw std::runtime_error("libllama could not make a context");
    }
}

ReferenceContext::~ReferenceContext() {
    llama_free(context_);
}

std::vector<float> ReferenceContext::last_logits() const {
    const float * logits = llama_get_logits_ith(context_, -1);
    if (logits == nullptr) {
        throw std::runtime_error("libllama has no logits of the last token");
    }
    return {logits, logits + model_.n_vocab()};
}

std::vector<float> ReferenceContext::feed(std::span<const int32_t> tokens) {
    std::vector<int32_t> copy(tokens.begin(), tokens.end());
    for (size_t first = 0; first < copy.size(); first += kBatch) {
        const auto n = static_cast<int32_t>(std::min<size_t>(kBatch, copy.size() - first));
        if (llama_decode(context_, llama_batch_get_one(copy.data() + first, n)) != 0) {
            throw std::runtime_error("libllama could not decode " + std::to_string(n) + " tokens");
        }
    }
    n_past_ += static_cast<int32_t>(tokens.size());
    return last_logits();
}

std::vector<float> ReferenceContext::feed(const std::string & text, const std::filesystem::path & image,
                                          bool add_special) {
    const mtmd_helper_bitmap_wrapper loaded = mtmd_helper_bitmap_init_from_file(model_.vision(), image.string().c_str(),
                                                                                false, mtmd_helper_init_opt_default());
    const mtmd::bitmap_ptr bitmap(loaded.bitmap);
    if (!bitmap) {
        throw std::runtime_error("libmtmd could not read " + image.string());
    }
    const mtmd_input_text input = {text.c_str(), text.size(), add_special, true};
    const mtmd::input_chunks_ptr chunks(mtmd_input_chunks_init());
    const mtmd_bitmap * bitmaps[] = {bitmap.get()};
    if (mtmd_tokenize(model_.vision(), chunks.get(), &input, bitmaps, 1) != 0) {
        throw std::runtime_error("libmtmd could not tokenize the prompt");
    }
    llama_pos n_past = n_past_;
    if (mtmd_helper_eval_chunks(model_.vision(), context_, chunks.get(), n_past, 0, kBatch, true, &n_past) != 0) {
        throw std::runtime_error("libmtmd could not evaluate the prompt");
    }
    n_past_ = n_past;
    return last_logits();
}

std::vector<float> ReferenceContext::feed_embeddings(std::span<const float> embeddings, int32_t n_embd) {
    const auto total = static_cast<int32_t>(embeddings.size() / static_cast<size_t>(n_embd));
    for (int32_t first = 0; first < total; first += kBatch) {
        const int32_t n = std::min(kBatch, total - first);
        llama_batch batch = llama_batch_init(n, n_embd, 1);
        std::copy_n(embeddings.data() + static_cast<int64_t>(first) * n_embd, static_cast<int64_t>(n) * n_embd,
                    batch.embd);
        batch.n_tokens = n;
        for (int32_t i = 0; i < n; ++i) {
            batch.pos[i] = n_past_ + first + i;
            batch.n_seq_id[i] = 1;
            batch.seq_id[i][0] = 0;
            batch.logits[i] = i + 1 == n ? 1 : 0;
        }
        const int32_t status = llama_decode(context_, batch);
        llama_batch_free(batch);
        if (status != 0) {
            throw std::runtime_error("libllama could not decode " + std::to_string(n) + " embeddings");
        }
    }
    n_past_ += total;
    return last_logits();
}

void ReferenceContext::reset() {
    llama_memory_clear(llama_get_memory(context_), true);
    n_past_ = 0;
}

}  // namespace kvsieve::test
