// SPDX-License-Identifier: MIT
#include <map>
#include <string>
#include <utility>

#include "engine/narrowed.h"
#include "engine/session_impl.h"
#include "graph/observation.h"
#include "kvsieve/error.h"

namespace kvsieve {
namespace {

struct Scored {
    std::shared_ptr<const Method> method;  // with keep 1: scores do not depend on it
    std::vector<LayerScore> scores = {};   // [L]; empty where the method refused the prompt
};

/// Keeps everything and lets methods score what they asked for. Belongs to one session.
class Observers final : public Watcher {
  public:
    explicit Observers(std::vector<Scored *> methods) : methods_(std::move(methods)) {
        Traits all;
        for (const Scored * one : methods_) {
            all = joined_observations(all, one->method->traits());
        }
        traits_ = watching(all);
    }
    void check(const PromptShape & prompt) const override {
        for (Scored * one : methods_) {
            try {
                one->method->check(prompt);
                one->scores.assign(static_cast<size_t>(prompt.n_layer), {});
            } catch (const Error &) {
                one->scores.clear();  // begin() says why
            }
        }
    }
    [[nodiscard]] LayerScore score(const PromptShape & prompt, int32_t il,
                                   const LayerObservation & obs) const override {
        for (Scored * one : methods_) {
            const Traits & asked = one->method->traits();
            if (one->scores.empty() || (asked.prune_layer > 0 && il != asked.prune_layer - 1)) {
                continue;
            }
            const int32_t n_rows = prompt.n_tokens - first_row(asked, prompt);
            one->scores[static_cast<size_t>(il)] = one->method->score(prompt, il, Narrowed(obs, asked, n_rows));
        }
        return {};
    }

  private:
    std::vector<Scored *> methods_;
};

}  // namespace

struct SharedPrefill::Impl {
    std::shared_ptr<const Model> model;
    SessionOptions options;
    std::map<MethodName, Scored> methods;
    std::map<int32_t, std::vector<float>> residuals;  // the stream before a layer where a method prunes
    std::optional<Session> base;

    using Probes = std::shared_ptr<const ProbeData>;

    /// Sets of methods that one prefill can serve: it has one set of probes, and statistics of the queries leave out
    /// one number of sinks.
    [[nodiscard]] std::map<std::pair<Probes, int32_t>, std::vector<Scored *>> groups() {
        std::map<std::pair<Probes, int32_t>, std::vector<Scored *>> out;
        for (const bool with_stats : {true, false}) {
            for (auto & [name, one] : methods) {
                const Traits & traits = one.method->traits();
                if (traits.query_stats == with_stats) {
                    const auto first = out.lower_bound({name.probes, 0});
                    const bool joins = !with_stats && first != out.end() && first->first.first == name.probes;
                    out[joins ? first->first : std::pair{name.probes, traits.n_sink}].push_back(&one);
                }
            }
        }
        if (out.empty()) {
            out[{nullptr, 0}] = {};
        }
        return out;
    }

    template <typename Feed>
    void feed(Feed && feed_session) {
        if (base) {
            throw Error(ErrorCode::invalid_argument, "a shared prefill takes one prompt");
        }
        for (auto & [key, group] : groups()) {
            SessionOptions own = options;
            own.probes = key.first;
            Session session(model, own, std::make_shared<Observers>(std::move(group)));
            if (!base) {
                session.impl_->on_residual = [this](int32_t il, std::span<const float> stream) {
                    if (const auto found = residuals.find(il); found != residuals.end()) {
                        found->second.assign(stream.begin(), stream.end());
                    }
                };
            }
            feed_session(session);
            session.impl_->on_residual = {};
            if (!base) {
                base.emplace(std::move(session));
            }
        }
    }
};

SharedPrefill::SharedPrefill(std::shared_ptr<const Model> model, const SessionOptions & options,
                             std::vector<MethodName> methods)
    : impl_(std::make_unique<Impl>()) {
    impl_->model = std::move(model);
    impl_->options.n_ctx = options.n_ctx;
    impl_->options.system = options.system;
    impl_->options.chat_template = options.chat_template;
    for (MethodName & name : methods) {
        Scored one{.method = make_method(name.name, {.params = name.params, .seed = name.seed})};
        if (const int32_t il = one.method->traits().prune_layer; il > 0) {
            impl_->residuals[il] = {};
        }
        impl_->methods.emplace(std::move(name), std::move(one));
    }
}
SharedPrefill::~SharedPrefill() = default;
SharedPrefill::SharedPrefill(SharedPrefill &&) noexcept = default;
SharedPrefill & SharedPrefill::operator=(SharedPrefill &&) noexcept = default;

void SharedPrefill::feed(std::span<const int32_t> tokens) {
    impl_->feed([&](Session & session) { static_cast<void>(session.feed(tokens)); });
}

void SharedPrefill::feed(const Turn & turn, bool render, const Callbacks & callbacks) {
    impl_->feed([&](Session & session) { static_cast<void>(session.feed(turn, render, callbacks)); });
}

const Session & SharedPrefill::full() const {
    if (!impl_->base) {
        throw Error(ErrorCode::invalid_argument, "a shared prefill was used before its prompt was fed");
    }
    return *impl_->base;
}

std::span<const LayerScore> SharedPrefill::scores(const MethodName & method) const {
    const auto found = impl_->methods.find(method);
    if (found == impl_->methods.end()) {
        throw Error(ErrorCode::invalid_argument, "method " + method.name +
                                                     " with these parameters is not among those "
                                                     "that the shared prefill was made for");
    }
    return found->second.scores;
}

Session SharedPrefill::begin(const SessionOptions & options) const {
    const SessionOptions & own = impl_->options;
    if (options.n_ctx != own.n_ctx || options.system != own.system || options.chat_template != own.chat_template) {
        throw Error(ErrorCode::invalid_argument,
                    "a session has another context, system message or chat template than the prefill that it shares");
    }
    const Session::Impl & base = *full().impl_;
    const auto of_method =
        scores({options.method, options.method_options.params, options.method_options.seed, options.probes});
    Session session(impl_->model, options);
    const int32_t il = session.impl_->method->traits().prune_layer;
    const auto residual = impl_->residuals.find(il);
    session.impl_->adopt(
        base, of_method,
        residual != impl_->residuals.end() ? std::span<const float>(residual->second) : std::span<const float>());
    return session;
}

}  // namespace kvsieve
