// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include "kvsieve/engine.h"

/// Throws Error{invalid_argument} for a grammar that libllama cannot parse, with what its parser says. That parser
/// writes to stderr by itself, so call this before threads are started.
void check_grammar(const kvsieve::Model & model, const std::string & grammar);
