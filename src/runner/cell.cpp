// SPDX-License-Identifier: MIT
#include "runner/cell.h"

#include <algorithm>
#include <utility>

#include "eval/metrics.h"
#include "kvsieve/error.h"

namespace kvsieve {
namespace {

[[noreturn]] void refuse(const Sample & sample, const std::string & why) {
    throw Error(ErrorCode::bad_input, "line " + std::to_string(sample.line) + ": " + why);
}

void check_tokens(const Model & model, const Sample & sample, std::span<const int32_t> tokens) {
    for (const int32_t token : tokens) {
        if (token < 0 || token >= model.info().n_vocab) {
            refuse(sample, "token " + std::to_string(token) + " is not in the model's vocabulary of " +
                               std::to_string(model.info().n_vocab));
        }
    }
}

std::vector<int32_t> answer_tokens(const Model & model, const Sample & sample, const Question & question) {
    std::vector<int32_t> tokens = question.answer_tokens;
    if (tokens.empty() && !question.answers.empty()) {
        tokens = model.tokenize(question.answers[0], false, false);
    }
    if (tokens.empty()) {
        refuse(sample, "the answer has no tokens, expected at least one");
    }
    check_tokens(model, sample, tokens);
    return tokens;
}

SessionOptions session_options(const CellKey & key, const CellOptions & options) {
    SessionOptions session;
    session.method = key.method;
    session.method_options.params = key.params;
    session.method_options.keep = key.keep.value_or(1.0);
    session.kv_share = key.budget.value_or(0.0);
    session.kv_type = parse_kv_type(key.kv_type);
    session.chat_template = options.chat_template;
    return session;
}

Turn turn_of(const Sample & sample, size_t i) {
    return {sample.turns[i].prompt, i == 0 ? sample.images : std::vector<std::filesystem::path>()};
}

/// The prompt of the first question.
std::span<const float> feed_prompt(Session & session, const Sample & sample, const CellOptions & options) {
    const Question & question = sample.turns[0];
    return question.prompt_tokens.empty() ? session.feed(turn_of(sample, 0), options.chat_template != "raw")
                                          : session.feed(question.prompt_tokens);
}

void state_bytes(const Session & session, CellResult & result) {
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
}

/// Teacher-forced: true tokens one at a time, under the method's decode rule.
void measure_perplexity(Session & session, std::span<const float> logits, std::span<const int32_t> answer,
                        CellResult & result) {
    for (size_t i = 0; i < answer.size(); ++i) {
        result.nll += token_nll(logits, answer[i]);
        ++result.n_tokens;
        if (i + 1 < answer.size()) {
            logits = session.feed(answer.subspan(i, 1));
        }
    }
}

void measure_texts(Session & session, const Sample & sample, const std::string & reference, const CellOptions & options,
                   CellResult & result) {
    const GenerateOptions generate{.n_predict = options.n_predict, .stop = {}, .sampling = {}};
    const auto wants = [&](const char * metric) { return std::ranges::count(options.metrics, metric) > 0; };
    result.text = session.ask(turn_of(sample, 0), generate).text;
    const auto & answers = sample.turns[0].answers;
    if (wants("rouge_l")) {
        result.metrics["rouge_l"] = rouge_l(result.text, reference);
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
    if (wants("exact_match_next") && sample.turns.size() > 1) {
        double sum = 0.0;
        for (size_t i = 1; i < sample.turns.size(); ++i) {
            sum += exact_match(session.ask(turn_of(sample, i), generate).text, sample.turns[i].answers);
        }
        result.n_next = static_cast<int64_t>(sample.turns.size()) - 1;
        result.metrics["exact_match_next"] = sum / static_cast<double>(result.n_next);
    }
}

}  // namespace

CellResult measure_cell(const std::shared_ptr<const Model> & model, const Sample & sample, const CellKey & key,
                        const std::string & reference, const CellOptions & options) {
    const Question & first = sample.turns.at(0);
    const bool perplexity = std::ranges::count(options.metrics, "ppl") > 0;
    const bool texts = std::cmp_greater(options.metrics.size(), perplexity ? 1 : 0);
    check_tokens(*model, sample, first.prompt_tokens);
    if (texts && std::ranges::any_of(sample.turns, [](const Question & q) { return !q.prompt_tokens.empty(); })) {
        refuse(sample, "a prompt of token numbers can only be measured with ppl");
    }
    const std::vector<int32_t> answer = perplexity ? answer_tokens(*model, sample, first) : std::vector<int32_t>();
    CellResult empty{.sample = sample.id, .group = sample.group, .key = key};
    CellResult result = empty;
    try {
        Session session(model, session_options(key, options));
        const auto logits = feed_prompt(session, sample, options);
        state_bytes(session, result);
        if (perplexity) {
            measure_perplexity(session, logits, answer, result);
        }
        if (texts) {
            session.reset();
            measure_texts(session, sample, reference, options, result);
        }
    } catch (const Error & error) {
        if (error.code() != ErrorCode::invalid_argument && error.code() != ErrorCode::bad_input) {
            throw;
        }
        result = std::move(empty);
        result.keep = key.keep.value_or(1.0);
        result.error = error.what();
    }
    return result;
}

}  // namespace kvsieve
