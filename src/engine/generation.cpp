// SPDX-License-Identifier: MIT
#include "engine/generation.h"

#include <string>
#include <utility>

#include "kvsieve/error.h"

namespace kvsieve {

Generation::Generation(const TextModel & text, const GenerateOptions & options)
    : n_predict_(options.n_predict),
      sampler_(text, {options.sampling.temp, options.sampling.top_k, options.sampling.top_p, options.sampling.min_p,
                      options.sampling.seed, options.sampling.grammar}),
      stop_(options.stop) {
    if (options.n_predict < 0) {
        throw Error(ErrorCode::invalid_argument,
                    "the number of tokens to predict must not be negative, got " + std::to_string(options.n_predict));
    }
}

void Generation::emit(Session::Impl & session, const std::string & text, const Callbacks & callbacks) const {
    *session.answer += text;  // at once: a cancelled answer belongs to the conversation as far as it came
    if (callbacks.on_text && !text.empty()) {
        callbacks.on_text(text);
    }
}

bool Generation::advance(Session::Impl & session, const Callbacks & callbacks) {
    if (out_.tokens.empty()) {
        session.answer = "";
    }
    if (std::cmp_greater_equal(out_.tokens.size(), n_predict_)) {
        out_.finish = FinishReason::length;
        return false;
    }
    const TextModel & text = session.parts().text;
    const int32_t token = sampler_.sample(session.logits);
    if (text.is_eog(token)) {
        out_.finish = FinishReason::end_of_generation;
        return false;
    }
    sampler_.accept(token);
    out_.tokens.push_back(token);
    session.pending = {token};
    emit(session, stop_.push(utf8_.push(text.piece(token))), callbacks);
    if (stop_.stopped()) {
        out_.finish = FinishReason::stop_text;
        return false;
    }
    if (session.n_processed + 1 >= session.n_ctx) {
        out_.finish = FinishReason::context;
        return false;
    }
    if (!session.fits(1)) {
        out_.finish = FinishReason::kv_budget;
        return false;
    }
    if (std::cmp_greater_equal(out_.tokens.size(), n_predict_)) {
        out_.finish = FinishReason::length;
        return false;
    }
    return true;
}

Answer Generation::finish(Session::Impl & session, const Callbacks & callbacks) {
    if (!session.answer) {
        session.answer = "";
    }
    if (!stop_.stopped()) {
        emit(session, stop_.push(utf8_.finish()), callbacks);
        emit(session, stop_.finish(), callbacks);
    }
    out_.text = *session.answer;
    out_.timings = session.timings;
    return std::move(out_);
}

}  // namespace kvsieve
