// SPDX-License-Identifier: MIT
// The most bytes that a sequence's cache can take, known before it takes them.
#pragma once

#include <cstdint>

#include "engine/session_impl.h"

namespace kvsieve {

/// Bytes of a session's cache now: rows reserved, their positions, and the layer in work of a prefill.
[[nodiscard]] uint64_t kv_bytes_now(const Session::Impl & session);

/// Of a first prompt before it starts, until its answer of n_predict tokens ends. Throws what choose_method() throws.
[[nodiscard]] uint64_t kv_bound_of_prompt(Session::Impl & session, const Prompt & prompt, int32_t n_predict);

/// Of a session behind its prompt, until n_predict more tokens are processed and no more after them: the cache keeps no
/// spare rows behind what these can take.
[[nodiscard]] uint64_t bind_answer(Session::Impl & session, int32_t n_predict);

}  // namespace kvsieve
