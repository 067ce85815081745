// SPDX-License-Identifier: MIT
#include "runner/measure.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <iterator>
#include <optional>
#include <set>
#include <utility>

#include "eval/data_uri.h"
#include "eval/grid.h"
#include "eval/inequality.h"
#include "eval/metrics.h"
#include "kvsieve/error.h"
#include "policy/clock.h"

namespace kvsieve {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kLorenzPoints = 33;
constexpr size_t kMaxImageBytes = size_t{1} << 20;
/// Its scores are the column sums of attention, mean over heads.
const MethodName kImportance{.name = "prefixkv"};

[[noreturn]] void refuse(const Sample & sample, const std::string & why) {
    throw Error(ErrorCode::bad_input, "line " + std::to_string(sample.line) + ": " + why);
}

bool is_refusal(ErrorCode code) {
    return code == ErrorCode::invalid_argument || code == ErrorCode::bad_input || code == ErrorCode::too_large;
}

/// One sample's work.
class Measurement {
  public:
    Measurement(const std::shared_ptr<const Model> & model, const Sample & sample, std::span<const CellKey> grid,
                const MeasureOptions & options, const MeasureCallbacks & callbacks)
        : model_(*model),
          sample_(sample),
          options_(options),
          callbacks_(callbacks),
          perplexity_(wants("ppl")),
          texts_(std::cmp_greater(options.metrics.size(), perplexity_ ? 1 : 0)) {
        const Question & first = sample.turns.at(0);
        check_tokens(first.prompt_tokens);
        if (texts_ && std::ranges::any_of(sample.turns, [](const Question & q) { return !q.prompt_tokens.empty(); })) {
            refuse(sample, "a prompt of token numbers can only be measured with ppl");
        }
        const bool oracle = std::ranges::any_of(grid, [](const CellKey & key) { return key.method == kOracle; });
        if (perplexity_ || oracle) {
            answer_ = answer_tokens(first);
        }
        if (oracle) {
            record_answer(model);
        }
    }

    /// What all sessions of the sample have in common.
    [[nodiscard]] SessionOptions session_options() const {
        SessionOptions session;
        session.n_ctx = options_.n_ctx;
        session.system = options_.system;
        session.chat_template = options_.chat_template;
        return session;
    }

    [[nodiscard]] MethodName method_of(const CellKey & key) const {
        return {.name = registered_method(key),
                .params = method_params(key),
                .probes = key.method == kOracle ? answer_probes_ : nullptr};
    }

    void prefill(SharedPrefill & shared) {
        with_prompt([&](const auto & prompt, const Callbacks & callbacks) {
            if constexpr (std::is_same_v<decltype(prompt), const Turn &>) {
                shared.feed(prompt, true, callbacks);
            } else {
                shared.feed(prompt);
            }
        });
        const auto n_ctx = static_cast<size_t>(options_.n_ctx > 0 ? options_.n_ctx : model_.info().n_ctx_train);
        const auto n_prompt = static_cast<size_t>(shared.full().n_processed());
        if (n_prompt + answer_.size() > n_ctx) {
            refuse(sample_, "prompt and answer have " + std::to_string(n_prompt + answer_.size()) +
                                " tokens, the context takes " + std::to_string(n_ctx));
        }
        times_.vision += shared.full().timings().vision_ms;
        times_.prefill += shared.full().timings().prefill_ms;
    }

    [[nodiscard]] SampleFacts facts(const SharedPrefill & shared) const {
        SampleFacts facts{.sample = sample_.id};
        for (const LayerScore & layer : shared.scores(kImportance)) {
            const std::vector<float> importance(layer.score.begin(), layer.score.end());
            facts.gini.push_back(gini(importance));
            facts.lorenz.push_back(lorenz_curve(importance, kLorenzPoints));
        }
        const auto & images = shared.full().images();
        if (options_.with_image && !images.empty() && images[0].grid_known) {
            std::ifstream file(sample_.images[0], std::ios::binary);
            const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
            const bool is_png = bytes.starts_with("\x89PNG"), is_jpeg = bytes.starts_with("\xff\xd8");
            if ((is_png || is_jpeg) && bytes.size() <= kMaxImageBytes) {
                facts.image = data_uri(is_png ? "image/png" : "image/jpeg", bytes);
                facts.nx = images[0].nx;
                facts.ny = images[0].ny;
            }
        }
        return facts;
    }

    [[nodiscard]] CellResult cell(const SharedPrefill & shared, const CellKey & key) {
        CellResult result{.sample = sample_.id, .group = sample_.group, .key = key};
        std::optional<Session> session;
        try {
            session.emplace(begin(shared, key));
        } catch (const Error & error) {
            if (!is_refusal(error.code())) {
                throw;
            }
            result.keep = key.keep.value_or(1.0);
            result.error = error.what();
            return result;
        }
        state_cache(*session, result);
        const bool is_full = key.method == "full" && key.kv_type == "f16";
        if (texts_) {
            if (wants("rouge_l") && !reference_ && !is_full) {
                Session full = begin(shared, {.method = "full", .keep = 1.0});
                reference_ = generate(full);
            }
            result.text = generate(*session);
            if (is_full) {
                reference_ = result.text;
            }
            score_texts(*session, result);
            if (perplexity_) {
                session.emplace(begin(shared, key));
            }
        }
        if (perplexity_) {
            measure_perplexity(*session, result);
        }
        return result;
    }

    [[nodiscard]] const MeasureTimes & times() const { return times_; }

  private:
    [[nodiscard]] bool wants(const char * metric) const { return std::ranges::count(options_.metrics, metric) > 0; }

    /// Calls `work` with the prompt, a Turn or its tokens, and with callbacks.
    template <typename Work>
    void with_prompt(const Work & work) const {
        const Question & first = sample_.turns[0];
        try {
            if (first.prompt_tokens.empty()) {
                Callbacks callbacks;
                callbacks.is_cancelled = callbacks_.is_cancelled;
                work(Turn{first.prompt, sample_.images}, callbacks);
            } else {
                work(std::span<const int32_t>(first.prompt_tokens), Callbacks());
            }
        } catch (const Error & error) {
            if (!is_refusal(error.code())) {
                throw;
            }
            refuse(sample_, error.what());
        }
    }

    /// The probes of the oracle: every token of the true answer.
    void record_answer(const std::shared_ptr<const Model> & model) {
        const auto start = Clock::now();
        with_prompt([&](const auto & prompt, const Callbacks & callbacks) {
            answer_probes_ = probes_of_answer(model, session_options(), prompt, answer_, callbacks);
        });
        times_.prefill += ms_since(start);
    }

    void check_tokens(std::span<const int32_t> tokens) const {
        for (const int32_t token : tokens) {
            if (token < 0 || token >= model_.info().n_vocab) {
                refuse(sample_, "token " + std::to_string(token) + " is not in the model's vocabulary of " +
                                    std::to_string(model_.info().n_vocab));
            }
        }
    }

    [[nodiscard]] std::vector<int32_t> answer_tokens(const Question & question) const {
        std::vector<int32_t> tokens = question.answer_tokens;
        if (tokens.empty() && !question.answers.empty()) {
            tokens = model_.tokenize(question.answers[0], false, false);
        }
        if (tokens.empty()) {
            refuse(sample_, "the answer has no tokens, expected at least one");
        }
        check_tokens(tokens);
        return tokens;
    }

    [[nodiscard]] Session begin(const SharedPrefill & shared, const CellKey & key) {
        SessionOptions session = session_options();
        session.method = registered_method(key);
        session.probes = method_of(key).probes;
        session.method_options = method_options(key);
        session.kv_share = key.budget.value_or(0.0);
        const CellRows rows = cell_rows(key.kv_type);
        session.kv_type = parse_kv_type(rows.type);
        session.kv_rot = rows.rotate;
        Session begun = shared.begin(session);
        times_.prefill += begun.timings().prefill_ms;
        times_.plan += begun.timings().plan_ms;
        times_.compact += begun.timings().compact_ms;
        return begun;
    }

    void state_cache(const Session & session, CellResult & result) const {
        const KvUsage usage = session.usage();
        result.keep = session.method_options().keep;
        result.n_prompt = session.n_processed();
        result.kv_bytes = usage.bytes_held;
        result.kv_bytes_full = usage.bytes_full_f16;
        for (const auto & heads : usage.rows_of) {
            int64_t rows = 0;
            for (const int32_t n : heads) {
                rows += n;
            }
            result.layer_rows.push_back(rows);
        }
        const auto layers_of = [&](const char * name) {
            const auto found = session.plan()->extra.find(name);
            const auto * list =
                found != session.plan()->extra.end() ? std::get_if<std::vector<double>>(&found->second) : nullptr;
            return list != nullptr ? *list : std::vector<double>();
        };
        result.strength = layers_of("strength");
        result.skewness = layers_of("skew");
        if (options_.with_image && !session.images().empty()) {
            result.token_layers = token_layers(session);
        }
    }

    /// Layers that hold each visual token of the first image, mean over KV heads.
    [[nodiscard]] std::vector<double> token_layers(const Session & session) const {
        const PromptShape & shape = session.prompt_shape();
        const ImagePlace & image = session.images()[0];
        std::vector<double> layers(static_cast<size_t>(image.n_tokens), 0.0);
        for (int32_t il = 0; il < shape.n_layer; ++il) {
            for (int32_t g = 0; g < shape.n_head_kv; ++g) {
                for (const int32_t position : session.positions(il, g)) {
                    const int32_t at = position - image.first_position;
                    if (at >= 0 && at < image.n_tokens) {
                        layers[static_cast<size_t>(at)] += 1.0 / shape.n_head_kv;
                    }
                }
            }
        }
        return layers;
    }

    /// Teacher-forced: true tokens one at a time, under the method's decode rule.
    void measure_perplexity(Session & session, CellResult & result) {
        const auto start = Clock::now();
        std::span<const float> logits = session.logits();
        for (size_t i = 0; i < answer_.size(); ++i) {
            throw_if_cancelled();
            result.nll += token_nll(logits, answer_[i]);
            ++result.n_tokens;
            if (i + 1 < answer_.size()) {
                logits = session.feed(std::span<const int32_t>(answer_).subspan(i, 1));
            }
        }
        times_.perplexity += ms_since(start);
    }

    [[nodiscard]] GenerateOptions generation() const {
        return {.n_predict = options_.n_predict, .stop = {}, .sampling = {}};
    }

    [[nodiscard]] std::string generate(Session & session) {
        const auto start = Clock::now();
        Callbacks callbacks;
        callbacks.is_cancelled = callbacks_.is_cancelled;
        std::string text = session.generate(generation(), callbacks).text;
        times_.generate += ms_since(start);
        return text;
    }

    void score_texts(Session & session, CellResult & result) {
        const auto & answers = sample_.turns[0].answers;
        if (wants("rouge_l")) {
            result.metrics["rouge_l"] = rouge_l(result.text, reference_.value());
        }
        if (wants("exact_match")) {
            result.metrics["exact_match"] = exact_match(result.text, answers);
        }
        if (wants("anls")) {
            result.metrics["anls"] = anls(result.text, answers);
        }
        if (wants("relaxed_accuracy")) {
            result.metrics["relaxed_accuracy"] = relaxed_accuracy(result.text, answers);
        }
        if (wants("exact_match_next") && sample_.turns.size() > 1) {
            const auto start = Clock::now();
            double sum = 0.0;
            for (size_t i = 1; i < sample_.turns.size(); ++i) {
                throw_if_cancelled();
                sum += exact_match(session.ask({sample_.turns[i].prompt, {}}, generation()).text,
                                   sample_.turns[i].answers);
            }
            result.n_next = static_cast<int64_t>(sample_.turns.size()) - 1;
            result.metrics["exact_match_next"] = sum / static_cast<double>(result.n_next);
            times_.generate += ms_since(start);
        }
    }

    void throw_if_cancelled() const {
        if (callbacks_.is_cancelled && callbacks_.is_cancelled()) {
            throw Error(ErrorCode::cancelled, "the evaluation was cancelled");
        }
    }

    const Model & model_;
    const Sample & sample_;
    const MeasureOptions & options_;
    const MeasureCallbacks & callbacks_;
    bool perplexity_, texts_;
    std::vector<int32_t> answer_;
    std::shared_ptr<const ProbeData> answer_probes_;  // of the oracle; none where it has no cell
    std::optional<std::string> reference_;            // the full f16 cache's generation
    MeasureTimes times_;
};

}  // namespace

MeasureTimes & MeasureTimes::operator+=(const MeasureTimes & other) {
    vision += other.vision;
    prefill += other.prefill;
    plan += other.plan;
    compact += other.compact;
    perplexity += other.perplexity;
    generate += other.generate;
    return *this;
}

MeasureTimes measure_sample(const std::shared_ptr<const Model> & model, const Sample & sample,
                            std::span<const CellKey> grid, const MeasureOptions & options,
                            const MeasureCallbacks & callbacks) {
    Measurement work(model, sample, grid, options, callbacks);
    std::set<MethodName> methods = {kImportance, {.name = "full"}};
    std::ranges::transform(grid, std::inserter(methods, methods.end()),
                           [&](const CellKey & key) { return work.method_of(key); });
    SharedPrefill shared(model, work.session_options(), {methods.begin(), methods.end()});
    work.prefill(shared);
    if (callbacks.on_facts) {
        callbacks.on_facts(work.facts(shared));
    }
    for (const CellKey & key : grid) {
        callbacks.on_cell(work.cell(shared, key));
    }
    return work.times();
}

}  // namespace kvsieve
