// SPDX-License-Identifier: MIT
// Compiled with the include directories of kvsieve_policy: accepted as it is, refused with WITH_GGML.
#include "kvsieve/policy.h"
#ifdef WITH_GGML
#include "ggml.h"
#endif

int n_tokens_of(const kvsieve::PromptShape & prompt) {
    return prompt.n_tokens;
}
