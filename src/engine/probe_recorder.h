// SPDX-License-Identifier: MIT
// Recording probe queries: what the model's own answers to calibration prompts ask of the cache.
#pragma once

#include <ggml.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kvsieve/engine.h"

namespace kvsieve {

class ProbeFile;
struct LayerProbes;

/// Probes of all layers as they are stored. `n_list` = n_layer x n_head.
struct ProbeData {
    std::string model_fingerprint;
    std::string data_sha256;  ///< of the calibration samples
    int32_t n_samples = 0;
    uint32_t n_rows = 0;  ///< recorded queries that the probes of a head stand for
    int32_t n_layer = 0, n_head = 0, head_dim = 0;
    int32_t n_probe = 0;               ///< per layer and head
    std::vector<ggml_fp16_t> queries;  ///< [n_layer][n_head][n_probe][head_dim], before RoPE
    std::vector<int32_t> offsets;      ///< [n_layer][n_head][n_probe] token of its answer, 0 = the first
    std::vector<float> weights;        ///< [n_layer][n_head][n_probe], sum 1 over a head's probes
    std::vector<float> shares;         ///< [n_layer][n_head][n_probe] of the attention, paid to the prompt

    /// As a prefill takes them, [n_layer]; views into this.
    [[nodiscard]] std::vector<LayerProbes> layers() const;
};

/// What there is to say of probes that stand for so few recorded queries that they are not used; "" of enough.
[[nodiscard]] std::string note_on_rows(uint32_t n_rows);

/// Writes a GGUF file that Model::load() takes as ModelOptions::probes, whole or not at all. Throws Error{io}.
void write_probes(const std::filesystem::path & path, const ProbeData & data);

inline constexpr int32_t kDefaultProbes = 256;         ///< of a layer and head
inline constexpr int32_t kDefaultRowsOfAnAnswer = 64;  ///< most tokens recorded of one answer

/// Not thread-safe. Memory: n_layer x n_head x head_dim x 2 bytes for every recorded token.
class ProbeRecorder {
  public:
    /// Of `options` only n_ctx, system and chat_template count. `max_rows`: most tokens recorded of one answer, evenly
    /// spaced.
    ProbeRecorder(std::shared_ptr<const Model> model, const SessionOptions & options, int32_t max_rows);

    /// Goes on from the model's own probes, each as many queries as it stands for; from nothing where it has none.
    void start_from_model();

    /// Lets the model answer with its whole cache, then records the queries of the answer's tokens. Returns how many.
    int32_t add(const Turn & turn, const GenerateOptions & generate, const Callbacks & callbacks = {});
    /// The same for a prompt of tokens.
    int32_t add(std::span<const int32_t> prompt, const GenerateOptions & generate, const Callbacks & callbacks = {});

    /// Records a given answer, the model's own or the true one; prefills prompt and answer once more.
    int32_t add_answer(const Turn & turn, std::span<const int32_t> answer, const Callbacks & callbacks = {});
    int32_t add_answer(std::span<const int32_t> prompt, std::span<const int32_t> answer,
                       const Callbacks & callbacks = {});

    /// What the latest add() recorded, as bytes for restore(). They hold on machines of the same byte order.
    [[nodiscard]] std::string latest() const;
    /// Adds what latest() of a recorder of the same model gave. False, with nothing added, if the bytes are no such.
    [[nodiscard]] bool restore(std::string_view bytes);

    /// Queries recorded here; those that the model's probes stand for are not among them.
    [[nodiscard]] int64_t n_rows() const { return static_cast<int64_t>(offsets_.size()); }
    /// At most `n_probe` probes for every layer and head: the recorded queries and the probes from which this began are
    /// clustered (k-means, deterministic), and the query nearest to a cluster's mean stands for it, with the cluster's
    /// share of all queries as its weight. Where that is no fewer than there are queries, each is a probe. Throws
    /// Error{invalid_argument} where nothing was recorded.
    [[nodiscard]] ProbeData probes(int32_t n_probe, int32_t n_threads) const;

  private:
    class Recorder;
    template <typename PromptOf>
    int32_t record(const PromptOf & prompt_of, std::span<const int32_t> tokens, const Callbacks & callbacks);

    std::shared_ptr<const Model> model_;
    SessionOptions options_;
    int32_t max_rows_;
    const ProbeFile * base_ = nullptr;  // of the model
    int32_t n_samples_ = 0;
    size_t latest_ = 0;                              // first row of the latest sample
    std::vector<int32_t> offsets_;                   // [n_rows]
    std::vector<std::vector<ggml_fp16_t>> queries_;  // [n_layer][n_rows][n_head][head_dim]
    std::vector<std::vector<float>> shares_;         // [n_layer][n_rows][n_head]
};

}  // namespace kvsieve
