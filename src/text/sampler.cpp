// SPDX-License-Identifier: MIT
#include "text/sampler.h"

#include <llama.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>

#include "kvsieve/error.h"

namespace kvsieve {
namespace {

struct SamplerDeleter {
    void operator()(llama_sampler * sampler) const { llama_sampler_free(sampler); }
};
using SamplerPtr = std::unique_ptr<llama_sampler, SamplerDeleter>;

[[noreturn]] void bad_option(const std::string & name, const std::string & came, const std::string & expected) {
    throw Error(ErrorCode::invalid_argument, name + " is " + came + ", expected " + expected);
}

void check(const SamplerOptions & options) {
    if (!(options.temp >= 0.0F) || !std::isfinite(options.temp)) {
        bad_option("temp", std::to_string(options.temp), "a number from 0 on");
    }
    if (options.top_k < 0) {
        bad_option("top_k", std::to_string(options.top_k), "0 (off) or more");
    }
    if (!(options.top_p > 0.0F && options.top_p <= 1.0F)) {
        bad_option("top_p", std::to_string(options.top_p), "a number above 0 and up to 1 (off)");
    }
    if (!(options.min_p >= 0.0F && options.min_p <= 1.0F)) {
        bad_option("min_p", std::to_string(options.min_p), "a number from 0 (off) to 1");
    }
}

// libllama's grammar parser recurses for every open bracket and for every chain of rules.
void check_grammar(const std::string & grammar) {
    constexpr size_t kMaxBytes = 128 * 1024;
    constexpr size_t kMaxNesting = 200;
    if (grammar.size() > kMaxBytes) {
        throw Error(ErrorCode::too_large, "the grammar has " + std::to_string(grammar.size()) +
                                              " bytes, expected at most " + std::to_string(kMaxBytes));
    }
    if (grammar.find('\0') != std::string::npos) {
        throw Error(ErrorCode::invalid_argument, "the grammar has a zero byte in its text");
    }
    size_t open = 0;
    for (const char c : grammar) {  // brackets in literals count too; no real grammar comes near the limit
        open = c == '(' ? open + 1 : c == ')' && open > 0 ? open - 1 : open;
        if (open > kMaxNesting) {
            throw Error(ErrorCode::invalid_argument,
                        "the grammar nests brackets more than " + std::to_string(kMaxNesting) + " deep");
        }
    }
}

}  // namespace

struct Sampler::Impl {
    const TextModel * text = nullptr;
    SamplerPtr chain;
    SamplerPtr grammar;  // may be empty
    bool greedy = true;
    bool broken = false;  // the grammar refused a token that was taken
    std::vector<llama_token_data> candidates;

    llama_token_data_array fill(std::span<const float> logits);
    bool allows(int32_t token) const;
    int32_t pick(std::span<const float> logits, bool with_grammar);
};

llama_token_data_array Sampler::Impl::fill(std::span<const float> logits) {
    candidates.resize(logits.size());
    for (size_t i = 0; i < logits.size(); ++i) {
        candidates[i] = {static_cast<llama_token>(i), logits[i], 0.0F};
    }
    return {candidates.data(), candidates.size(), -1, false};
}

// The grammar's answer for one token. Asking first matters: accepting a token that it does not allow aborts.
bool Sampler::Impl::allows(int32_t token) const {
    llama_token_data one{token, 1.0F, 0.0F};
    llama_token_data_array array{&one, 1, -1, false};
    llama_sampler_apply(grammar.get(), &array);
    return one.logit != -std::numeric_limits<float>::infinity();
}

int32_t Sampler::Impl::pick(std::span<const float> logits, bool with_grammar) {
    llama_token_data_array array = fill(logits);
    if (with_grammar) {
        llama_sampler_apply(grammar.get(), &array);
    }
    if (with_grammar && std::none_of(candidates.begin(), candidates.end(), [](const llama_token_data & candidate) {
            return candidate.logit != -std::numeric_limits<float>::infinity();
        })) {
        throw Error(ErrorCode::runtime, "the grammar cannot be continued by any token of the vocabulary");
    }
    llama_sampler_apply(chain.get(), &array);
    if (array.selected < 0 || static_cast<size_t>(array.selected) >= array.size) {
        throw Error(ErrorCode::runtime, "no token could be drawn from the logits");
    }
    return array.data[array.selected].id;
}

Sampler::Sampler(const TextModel & text, const SamplerOptions & options) : impl_(std::make_unique<Impl>()) {
    check(options);
    impl_->text = &text;
    impl_->greedy = options.temp == 0.0F;
    impl_->chain.reset(llama_sampler_chain_init({.no_perf = true}));
    const auto add = [this](llama_sampler * sampler) { llama_sampler_chain_add(impl_->chain.get(), sampler); };
    if (impl_->greedy) {
        add(llama_sampler_init_greedy());
    } else {
        add(llama_sampler_init_top_k(options.top_k));
        add(llama_sampler_init_top_p(options.top_p, 1));
        add(llama_sampler_init_min_p(options.min_p, 1));
        add(llama_sampler_init_temp(options.temp));
        add(llama_sampler_init_dist(options.seed));
    }
    if (options.grammar.empty()) {
        return;
    }
    check_grammar(options.grammar);
    try {
        impl_->grammar.reset(llama_sampler_init_grammar(text.vocab(), options.grammar.c_str(), "root"));
    } catch (const std::exception & e) {
        throw Error(ErrorCode::invalid_argument, std::string("the grammar cannot be parsed: ") + e.what());
    }
    if (!impl_->grammar) {
        throw Error(ErrorCode::invalid_argument,
                    "the grammar cannot be parsed, expected GBNF with a rule 'root', every rule defined and none "
                    "beginning with itself");
    }
}

Sampler::~Sampler() = default;
Sampler::Sampler(Sampler &&) noexcept = default;
Sampler & Sampler::operator=(Sampler &&) noexcept = default;

int32_t Sampler::sample(std::span<const float> logits) {
    if (logits.size() != static_cast<size_t>(impl_->text->n_vocab())) {
        throw Error(ErrorCode::invalid_argument,
                    std::to_string(logits.size()) + " logits came, expected " + std::to_string(impl_->text->n_vocab()));
    }
    size_t best = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
        if (std::isnan(logits[i]) || logits[i] == std::numeric_limits<float>::infinity()) {
            throw Error(ErrorCode::runtime, "the logit of token " + std::to_string(i) + " is not a number");
        }
        best = logits[i] > logits[best] ? i : best;
    }
    if (logits[best] == -std::numeric_limits<float>::infinity()) {
        throw Error(ErrorCode::runtime, "every logit is minus infinity, expected at least one number");
    }
    // As llama.cpp does: a draw without the grammar stands if the grammar allows it. Applying the grammar to the
    // whole vocabulary takes milliseconds.
    const int32_t token = impl_->greedy ? static_cast<int32_t>(best) : impl_->pick(logits, false);
    if (!impl_->grammar) {
        return token;
    }
    if (impl_->broken) {
        throw Error(ErrorCode::runtime, "the grammar did not allow the last token, so it cannot go on");
    }
    return impl_->allows(token) ? token : impl_->pick(logits, true);
}

void Sampler::accept(int32_t token) {
    if (impl_->grammar) {
        const auto refuse = [this, token] {
            impl_->broken = true;
            throw Error(ErrorCode::runtime, "the grammar does not allow token " + std::to_string(token) + " here");
        };
        if (impl_->broken || token < 0 || token >= impl_->text->n_vocab() || !impl_->allows(token)) {
            refuse();
        }
        try {
            llama_sampler_accept(impl_->grammar.get(), token);
        } catch (const std::exception &) {  // grammars that mix <tokens> and characters are asked only for the first
            refuse();
        }
    }
    llama_sampler_accept(impl_->chain.get(), token);
}

void Sampler::reset() {
    llama_sampler_reset(impl_->chain.get());
    if (impl_->grammar) {
        llama_sampler_reset(impl_->grammar.get());
    }
    impl_->broken = false;
}

}  // namespace kvsieve
