// SPDX-License-Identifier: MIT
#include "engine/observe.h"

#include <algorithm>
#include <span>
#include <utility>

#include "engine/narrowed.h"
#include "graph/observation.h"
#include "io/observation_writer.h"

namespace kvsieve {
namespace {

/// Keeps everything and writes what it is shown, layer by layer.
class Recorder final : public Watcher {
  public:
    Recorder(const Traits & wanted, std::filesystem::path path) : wanted_(wanted), path_(std::move(path)) {
        traits_ = watching(wanted);
    }
    [[nodiscard]] LayerScore score(const PromptShape & prompt, int32_t il,
                                   const LayerObservation & obs) const override {
        if (!writer_) {
            writer_ = std::make_unique<ObservationWriter>(path_, prompt, wanted_);
        }
        writer_->add(il, Narrowed(obs, wanted_, n_rows(prompt)));
        return {};
    }
    void finish() const { writer_->finish(); }

  private:
    [[nodiscard]] int32_t n_rows(const PromptShape & prompt) const {
        const int32_t window = wanted_.rows == RowsWanted::none ? 0 : std::min(wanted_.window, prompt.n_tokens);
        return std::max(window, prompt.n_tokens - first_row(wanted_, prompt));
    }

    Traits wanted_;
    std::filesystem::path path_;
    mutable std::unique_ptr<ObservationWriter> writer_;  // of one prefill; a recorder belongs to one session
};

}  // namespace

Traits all_observations() {
    Traits all;
    for (const MethodInfo & info : methods()) {
        all = joined_observations(all, info.traits);
    }
    return all;
}

PromptShape write_observations(std::shared_ptr<const Model> model, const SessionOptions & options, const Turn & turn,
                               const Traits & wanted, const std::filesystem::path & path, const Callbacks & callbacks) {
    const auto recorder = std::make_shared<Recorder>(wanted, path);
    Session session(std::move(model), options, recorder);
    static_cast<void>(session.feed(turn, true, callbacks));
    recorder->finish();
    return session.prompt_shape();
}

}  // namespace kvsieve
