// SPDX-License-Identifier: MIT
#include "engine/probe_recorder.h"

#include <gguf.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>

#include "engine/narrowed.h"
#include "engine/session_impl.h"
#include "graph/probes.h"
#include "io/atomic_file.h"
#include "kvsieve/error.h"
#include "policy/parallel.h"
#include "policy/rows.h"

namespace kvsieve {

std::string note_on_rows(uint32_t n_rows) {
    return n_rows >= kMinProbeRows ? ""
                                   : "; fewer than " + std::to_string(kMinProbeRows) +
                                         " tokens: until there are more, sieve uses the prompt's own queries";
}

void write_probes(const std::filesystem::path & path, const ProbeData & data) {
    const auto n_list = static_cast<size_t>(data.n_head) * static_cast<size_t>(data.n_probe);
    const auto d = static_cast<size_t>(data.head_dim);
    const size_t bytes =
        static_cast<size_t>(data.n_layer) * (n_list * (d * 2 + 12) + 4 * (ggml_tensor_overhead() + 64));
    const std::unique_ptr<ggml_context, void (*)(ggml_context *)> ctx(ggml_init({bytes, nullptr, false}), ggml_free);
    const std::unique_ptr<gguf_context, void (*)(gguf_context *)> file(gguf_init_empty(), gguf_free);
    if (!ctx || !file) {
        throw Error(ErrorCode::runtime, "not enough memory for the probes");
    }
    gguf_set_val_str(file.get(), "general.architecture", kProbesArchitecture);
    gguf_set_val_u32(file.get(), "kvsieve.probes.version", kProbesVersion);
    gguf_set_val_str(file.get(), "kvsieve.probes.model_fingerprint", data.model_fingerprint.c_str());
    gguf_set_val_str(file.get(), "kvsieve.probes.data_sha256", data.data_sha256.c_str());
    gguf_set_val_u32(file.get(), "kvsieve.probes.n_samples", static_cast<uint32_t>(data.n_samples));
    gguf_set_val_u32(file.get(), "kvsieve.probes.n_rows", data.n_rows);
    gguf_set_val_u32(file.get(), "kvsieve.probes.n_probe", static_cast<uint32_t>(data.n_probe));
    for (int32_t il = 0; il < data.n_layer; ++il) {
        const auto at = static_cast<size_t>(il) * n_list;
        const auto add = [&](const char * what, ggml_type type, std::initializer_list<int64_t> ne) {
            ggml_tensor * tensor = ggml_new_tensor(ctx.get(), type, static_cast<int>(ne.size()), ne.begin());
            ggml_set_name(tensor, ("blk." + std::to_string(il) + "." + what).c_str());
            gguf_add_tensor(file.get(), tensor);
            return tensor->data;
        };
        std::copy_n(
            data.queries.data() + at * d, n_list * d,
            static_cast<ggml_fp16_t *>(add("probe_q", GGML_TYPE_F16, {data.head_dim, data.n_probe, data.n_head})));
        std::copy_n(data.offsets.data() + at, n_list,
                    static_cast<int32_t *>(add("probe_offset", GGML_TYPE_I32, {data.n_probe, data.n_head})));
        std::copy_n(data.weights.data() + at, n_list,
                    static_cast<float *>(add("probe_weight", GGML_TYPE_F32, {data.n_probe, data.n_head})));
        std::copy_n(data.shares.data() + at, n_list,
                    static_cast<float *>(add("probe_share", GGML_TYPE_F32, {data.n_probe, data.n_head})));
    }
    atomic_write_file(path, [&](const std::filesystem::path & temporary) {
        if (!gguf_write_to_file(file.get(), temporary.c_str(), /*only_meta=*/false)) {
            throw Error(ErrorCode::io, "the probes " + path.string() + " cannot be written");
        }
    });
}

std::vector<LayerProbes> ProbeData::layers() const {
    const auto n_list = static_cast<size_t>(n_head) * static_cast<size_t>(n_probe);
    const auto d = static_cast<size_t>(head_dim);
    std::vector<LayerProbes> out;
    for (size_t at = 0; at < offsets.size(); at += n_list) {
        out.push_back({.type = GGML_TYPE_F16,
                       .queries = reinterpret_cast<const std::byte *>(queries.data() + at * d),
                       .n = n_probe,
                       .probe_bytes = d * sizeof(ggml_fp16_t),
                       .head_bytes = d * sizeof(ggml_fp16_t) * static_cast<size_t>(n_probe),
                       .offsets = std::span(offsets).subspan(at, n_list),
                       .weights = std::span(weights).subspan(at, n_list),
                       .shares = std::span(shares).subspan(at, n_list)});
    }
    return out;
}

/// Keeps everything and takes the queries of the last tokens and the share of attention that they pay to what stands
/// before them.
class ProbeRecorder::Recorder final : public Watcher {
  public:
    Recorder(ProbeRecorder & out, int32_t n_answer) : out_(out) {
        traits_.n_queries = n_answer;
        observe_window(traits_, n_answer);
        traits_.layerwise = true;
        const int32_t n = std::min(n_answer, out.max_rows_);
        for (int32_t i = 0; i < n; ++i) {
            tokens_.push_back(static_cast<int32_t>(int64_t{i} * n_answer / n));
        }
    }
    [[nodiscard]] const std::vector<int32_t> & tokens() const { return tokens_; }
    [[nodiscard]] LayerScore score(const PromptShape & prompt, int32_t il,
                                   const LayerObservation & obs) const override {
        const int32_t n_prompt = prompt.n_tokens - traits_.n_queries;
        const auto width = static_cast<size_t>(prompt.n_head) * static_cast<size_t>(prompt.head_dim);
        auto & queries = out_.queries_[static_cast<size_t>(il)];
        std::vector<int32_t> positions;
        for (const int32_t token : tokens_) {
            const size_t end = queries.size();
            queries.resize(end + width);
            ggml_fp32_to_fp16_row(obs.last_queries.data() + static_cast<size_t>(token) * width, queries.data() + end,
                                  static_cast<int64_t>(width));
            positions.push_back(n_prompt + token);
        }
        auto & shares = out_.shares_[static_cast<size_t>(il)];
        for_each_row(prompt, il, obs, positions, [&](size_t, std::span<const float> row) {
            const double share = std::accumulate(row.begin(), row.begin() + n_prompt, 0.0);
            shares.push_back(static_cast<float>(std::clamp(share, 0.0, 1.0)));
        });
        return {};
    }

  private:
    ProbeRecorder & out_;
    std::vector<int32_t> tokens_;  // of the answer, that are recorded
};

ProbeRecorder::ProbeRecorder(std::shared_ptr<const Model> model, const SessionOptions & options, int32_t max_rows)
    : model_(std::move(model)),
      max_rows_(max_rows),
      queries_(static_cast<size_t>(model_->info().n_layer)),
      shares_(static_cast<size_t>(model_->info().n_layer)) {
    options_.n_ctx = options.n_ctx;
    options_.system = options.system;
    options_.chat_template = options.chat_template;
}

/// `prompt_of` makes the prompt in a session; `tokens` are the answer to it.
template <typename PromptOf>
int32_t ProbeRecorder::record(const PromptOf & prompt_of, std::span<const int32_t> tokens,
                              const Callbacks & callbacks) {
    latest_ = offsets_.size();
    if (tokens.empty()) {
        return 0;
    }
    const auto recorder = std::make_shared<Recorder>(*this, static_cast<int32_t>(tokens.size()));
    Session::Impl session(model_, options_, recorder);
    Prompt prompt = prompt_of(session);
    for (const int32_t token : tokens) {
        prompt.tokens.push_back(token);
        prompt.visual_mask.push_back(0);
        prompt.positions.push_back(prompt.next_position++);
    }
    const size_t n_before = offsets_.size();
    try {
        session.process(prompt, 0, callbacks);
    } catch (...) {
        for (size_t il = 0; il < queries_.size(); ++il) {
            const ModelInfo & info = model_->info();
            queries_[il].resize(n_before * static_cast<size_t>(info.n_head) * static_cast<size_t>(info.head_dim));
            shares_[il].resize(n_before * static_cast<size_t>(info.n_head));
        }
        throw;
    }
    offsets_.insert(offsets_.end(), recorder->tokens().begin(), recorder->tokens().end());
    ++n_samples_;
    return static_cast<int32_t>(recorder->tokens().size());
}

std::string ProbeRecorder::latest() const {
    const ModelInfo & info = model_->info();
    const size_t n = offsets_.size() - latest_, n_head = static_cast<size_t>(info.n_head);
    std::string bytes;
    const auto put = [&](const auto & all, size_t per_row) {
        bytes.append(reinterpret_cast<const char *>(all.data() + latest_ * per_row), n * per_row * sizeof(all[0]));
    };
    put(offsets_, 1);
    for (size_t il = 0; il < queries_.size(); ++il) {
        put(queries_[il], n_head * static_cast<size_t>(info.head_dim));
        put(shares_[il], n_head);
    }
    return bytes;
}

bool ProbeRecorder::restore(std::string_view bytes) {
    const ModelInfo & info = model_->info();
    const size_t n_head = static_cast<size_t>(info.n_head), d = static_cast<size_t>(info.head_dim);
    const size_t of_layer = n_head * (d * sizeof(ggml_fp16_t) + sizeof(float));
    const size_t of_row = sizeof(int32_t) + static_cast<size_t>(info.n_layer) * of_layer;
    if (bytes.size() % of_row != 0) {
        return false;
    }
    const size_t n = bytes.size() / of_row;
    const auto take = [&](auto & all, size_t per_row) {
        const size_t before = all.size(), n_bytes = n * per_row * sizeof(all[0]);
        all.resize(before + n * per_row);
        if (n > 0) {
            std::memcpy(all.data() + before, bytes.data(), n_bytes);
        }
        bytes.remove_prefix(n_bytes);
    };
    latest_ = offsets_.size();
    take(offsets_, 1);
    for (size_t il = 0; il < queries_.size(); ++il) {
        take(queries_[il], n_head * d);
        take(shares_[il], n_head);
    }
    n_samples_ += n > 0 ? 1 : 0;
    return true;
}

void ProbeRecorder::start_from_model() {
    base_ = Session(model_, options_).impl_->parts().probes.get();
}

int32_t ProbeRecorder::add_answer(const Turn & turn, std::span<const int32_t> answer, const Callbacks & callbacks) {
    const auto prompt_of = [&](Session::Impl & session) {
        std::vector<ChatMessage> messages;
        return session.make_prompt(turn, true, messages, callbacks);
    };
    return record(prompt_of, answer, callbacks);
}

int32_t ProbeRecorder::add_answer(std::span<const int32_t> prompt, std::span<const int32_t> answer,
                                  const Callbacks & callbacks) {
    const auto prompt_of = [&](Session::Impl & session) { return build_prompt(session.parts().text, prompt, 0); };
    return record(prompt_of, answer, callbacks);
}

int32_t ProbeRecorder::add(const Turn & turn, const GenerateOptions & generate, const Callbacks & callbacks) {
    Session full(model_, options_);
    const Answer answer = full.ask(turn, generate, callbacks);
    return add_answer(turn, answer.tokens, callbacks);
}

int32_t ProbeRecorder::add(std::span<const int32_t> prompt, const GenerateOptions & generate,
                           const Callbacks & callbacks) {
    Session full(model_, options_);
    full.feed(prompt);
    const Answer answer = full.generate(generate, callbacks);
    return add_answer(prompt, answer.tokens, callbacks);
}

namespace {

/// Recorded queries of one head, [n][d]; a probe of a file counts as many as it stands for.
struct HeadRows {
    std::vector<ggml_fp16_t> queries;
    std::vector<int32_t> offsets;
    std::vector<double> counts, shares;
};

/// Clusters of rows: which row stands for each, and how many it stands for.
struct Clusters {
    std::vector<size_t> rows;
    std::vector<double> counts;
    std::vector<size_t> of;  // cluster of every row
};

float distance(const float * a, const float * b, size_t d) {
    float sum = 0;
    for (size_t i = 0; i < d; ++i) {
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    }
    return sum;
}

/// k-means from evenly spaced rows.
Clusters cluster(const HeadRows & rows, size_t d, size_t n_cluster) {
    constexpr int kRounds = 8;
    const size_t n = rows.offsets.size();
    Clusters out;
    out.of.assign(n, 0);
    if (n_cluster == n) {
        out.rows.resize(n);
        std::iota(out.rows.begin(), out.rows.end(), 0);
        out.of = out.rows;
        out.counts = rows.counts;
        return out;
    }
    std::vector<float> x(n * d), centres(n_cluster * d), sums, least(n);
    ggml_fp16_to_fp32_row(rows.queries.data(), x.data(), static_cast<int64_t>(x.size()));
    for (size_t c = 0; c < n_cluster; ++c) {
        std::copy_n(x.data() + c * n / n_cluster * d, d, centres.data() + c * d);
    }
    for (int round = 0;; ++round) {
        out.counts.assign(n_cluster, 0.0);
        for (size_t i = 0; i < n; ++i) {
            least[i] = std::numeric_limits<float>::max();
            for (size_t c = 0; c < n_cluster; ++c) {
                if (const float far = distance(x.data() + i * d, centres.data() + c * d, d); far < least[i]) {
                    least[i] = far;
                    out.of[i] = c;
                }
            }
            out.counts[out.of[i]] += rows.counts[i];
        }
        if (round == kRounds) {
            break;
        }
        sums.assign(n_cluster * d, 0.0F);
        for (size_t i = 0; i < n; ++i) {
            for (size_t j = 0; j < d; ++j) {
                sums[out.of[i] * d + j] += static_cast<float>(rows.counts[i]) * x[i * d + j];
            }
        }
        for (size_t c = 0; c < n_cluster; ++c) {
            for (size_t j = 0; out.counts[c] > 0 && j < d; ++j) {
                centres[c * d + j] = sums[c * d + j] / static_cast<float>(out.counts[c]);
            }
        }
    }
    out.rows.assign(n_cluster, 0);
    std::vector<float> nearest(n_cluster, std::numeric_limits<float>::max());
    for (size_t i = 0; i < n; ++i) {
        if (least[i] < nearest[out.of[i]]) {
            nearest[out.of[i]] = least[i];
            out.rows[out.of[i]] = i;
        }
    }
    return out;
}

}  // namespace

ProbeData ProbeRecorder::probes(int32_t n_probe, int32_t n_threads) const {
    if (offsets_.empty()) {
        throw Error(ErrorCode::invalid_argument, "no answer was recorded, expected at least one with a token");
    }
    const ModelInfo & info = model_->info();
    const size_t n_base = base_ == nullptr ? 0 : static_cast<size_t>(base_->n_probe()), n_new = offsets_.size();
    const size_t n = n_base + n_new, d = static_cast<size_t>(info.head_dim), n_head = static_cast<size_t>(info.n_head);
    const size_t n_kept = std::min(n, static_cast<size_t>(std::max(n_probe, 1)));
    const size_t n_list = static_cast<size_t>(info.n_layer) * n_head;
    const double base_rows = base_ == nullptr ? 0.0 : base_->n_rows();
    const double all_rows = base_rows + static_cast<double>(n_new);
    ProbeData out{.model_fingerprint = info.fingerprint,
                  .data_sha256 = base_ == nullptr ? "" : base_->data_sha256(),
                  .n_samples = n_samples_ + (base_ == nullptr ? 0 : base_->n_samples()),
                  .n_rows = static_cast<uint32_t>(std::min(all_rows, 4e9)),
                  .n_layer = info.n_layer,
                  .n_head = info.n_head,
                  .head_dim = info.head_dim,
                  .n_probe = static_cast<int32_t>(n_kept),
                  .queries = std::vector<ggml_fp16_t>(n_list * n_kept * d),
                  .offsets = std::vector<int32_t>(n_list * n_kept),
                  .weights = std::vector<float>(n_list * n_kept),
                  .shares = std::vector<float>(n_list * n_kept)};
    const auto rows_of = [&](size_t il, size_t h) {
        HeadRows rows{std::vector<ggml_fp16_t>(n * d), std::vector<int32_t>(n), std::vector<double>(n, 1.0),
                      std::vector<double>(n)};
        const LayerProbes base = base_ == nullptr ? LayerProbes() : base_->layers()[il];
        for (size_t i = 0; i < n_base; ++i) {
            std::memcpy(rows.queries.data() + i * d, base.queries + h * base.head_bytes + i * base.probe_bytes, d * 2);
            rows.offsets[i] = base.offsets[h * n_base + i];
            rows.counts[i] = base_rows * static_cast<double>(base.weights[h * n_base + i]);
            rows.shares[i] = static_cast<double>(base.shares[h * n_base + i]);
        }
        for (size_t i = 0; i < n_new; ++i) {
            std::copy_n(queries_[il].data() + (i * n_head + h) * d, d, rows.queries.data() + (n_base + i) * d);
            rows.offsets[n_base + i] = offsets_[i];
            rows.shares[n_base + i] = static_cast<double>(shares_[il][i * n_head + h]);
        }
        return rows;
    };
    parallel_for(n_list, n_threads, [&](size_t list) {
        const HeadRows rows = rows_of(list / n_head, list % n_head);
        const Clusters clusters = cluster(rows, d, n_kept);
        std::vector<double> share(n_kept, 0.0);
        for (size_t i = 0; i < n; ++i) {
            share[clusters.of[i]] += rows.counts[i] * rows.shares[i];
        }
        for (size_t c = 0; c < n_kept; ++c) {
            const size_t to = list * n_kept + c, row = clusters.rows[c];
            std::copy_n(rows.queries.data() + row * d, d, out.queries.data() + to * d);
            out.offsets[to] = rows.offsets[row];
            const double count = clusters.counts[c];
            out.weights[to] = static_cast<float>(count / all_rows);
            out.shares[to] = count > 0 ? static_cast<float>(share[c] / count) : 0.0F;
        }
    });
    return out;
}

namespace {

template <typename Asked>
std::shared_ptr<const ProbeData> record_all(const std::shared_ptr<const Model> & model, const SessionOptions & options,
                                            const Asked & prompt, std::span<const int32_t> answer,
                                            const Callbacks & callbacks) {
    constexpr int32_t kAll = std::numeric_limits<int32_t>::max();
    ProbeRecorder recorder(model, options, kAll);
    recorder.add_answer(prompt, answer, callbacks);
    return std::make_shared<const ProbeData>(recorder.probes(kAll, 1));
}

}  // namespace

std::shared_ptr<const ProbeData> probes_of_answer(const std::shared_ptr<const Model> & model,
                                                  const SessionOptions & options, const Turn & prompt,
                                                  std::span<const int32_t> answer, const Callbacks & callbacks) {
    return record_all(model, options, prompt, answer, callbacks);
}

std::shared_ptr<const ProbeData> probes_of_answer(const std::shared_ptr<const Model> & model,
                                                  const SessionOptions & options, std::span<const int32_t> prompt,
                                                  std::span<const int32_t> answer, const Callbacks & callbacks) {
    return record_all(model, options, prompt, answer, callbacks);
}

}  // namespace kvsieve
