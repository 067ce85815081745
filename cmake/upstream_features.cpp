// SPDX-License-Identifier: MIT
// Compiles with the headers of a llama.cpp that has what kvsieve uses; tried on an installed one.
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>
#include <gguf.h>
#include <llama.h>
#include <mtmd-helper.h>
#include <mtmd.h>

llama_model_params vocabulary_only() {
    llama_model_params params = llama_model_default_params();
    params.no_alloc = true;
    params.load_mode = LLAMA_LOAD_MODE_NONE;
    return params;
}

mtmd_context_params cold_vision() {
    mtmd_context_params params = mtmd_context_params_default();
    params.warmup = false;
    return params;
}

auto * const custom_op = &ggml_custom_4d;
auto * const abort_message = &ggml_set_abort_callback;
