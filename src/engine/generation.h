// SPDX-License-Identifier: MIT
// An answer in the making: what picks its tokens, what ends it, what is said so far.
#pragma once

#include "engine/session_impl.h"
#include "engine/stop_filter.h"
#include "text/sampler.h"
#include "text/utf8_stream.h"

namespace kvsieve {

/// Belongs to one session and one answer. Not thread-safe.
class Generation {
  public:
    /// Throws Error{invalid_argument} for options out of range.
    Generation(const TextModel & text, const GenerateOptions & options);

    /// Takes the next token from the session's logits; the answer's text grows and is shown. True: the token is
    /// `session.pending` and has to be processed before the next call. False: the answer is complete.
    [[nodiscard]] bool advance(Session::Impl & session, const Callbacks & callbacks);
    /// Shows what was held back and returns the answer as far as it came.
    [[nodiscard]] Answer finish(Session::Impl & session, const Callbacks & callbacks);

  private:
    void emit(Session::Impl & session, const std::string & text, const Callbacks & callbacks) const;

    int32_t n_predict_;
    Sampler sampler_;
    StopFilter stop_;
    Utf8Stream utf8_;
    Answer out_;
};

}  // namespace kvsieve
