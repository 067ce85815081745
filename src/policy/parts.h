// SPDX-License-Identifier: MIT
// What a file of methods/ adds to the registry: a scorer, an allocator, a method made of parts, or several of these.
#pragma once

#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "kvsieve/policy.h"
#include "policy/allocator.h"
#include "policy/params.h"
#include "policy/scorer.h"

namespace kvsieve {

/// One set of scores for all KV heads of a layer, or one per KV head.
enum class Granularity { layer, head };

struct ScorerPart {
    std::string_view name;
    std::string_view summary;  ///< what the score is, one sentence
    bool per_head = false;     ///< scores per KV head; `granularity` layer takes their mean
    bool mass = false;         ///< scores are never negative and their share of the layer's sum has a meaning
    bool visual_only = false;  ///< scores visual tokens only
    bool listed = true;        ///< may be named in a composition
    std::vector<ParamSpec> params = {};
    std::unique_ptr<Scorer> (*make)(const BoundParams &) = nullptr;
};

struct AllocatorPart {
    std::string_view name;
    std::string_view summary;   ///< how many rows a layer gets, one sentence
    bool needs_mass = false;    ///< works on shares of the scores' sum
    bool heads_only = false;    ///< divides a layer's rows among its KV heads
    bool layer_only = false;    ///< one set of rows for all KV heads
    bool ends_stay = false;     ///< the first and the last row do not compete
    bool needs_visual = false;  ///< budgets need visual tokens
    bool takes_profile = false;
    bool listed = true;  ///< may be named in a composition
    std::vector<ParamSpec> params = {};
    std::unique_ptr<Allocator> (*make)(const BoundParams &) = nullptr;
};

/// A method as published: its parts, and what goes beyond these.
struct MethodRow {
    std::string_view name;
    std::string_view paper = {};  ///< "arXiv 2412.03409", or "" for a baseline
    std::string_view summary;     ///< one sentence
    std::string_view scorer;      ///< a name of a ScorerPart
    std::string_view allocator;   ///< a name of an AllocatorPart
    bool visual = false;          ///< only visual rows compete; keep counts these
    bool takes_keep = true;
    bool ends_stay = false;             ///< the first and the last row do not compete
    bool merges = false;                ///< dropped rows become part of kept ones (METHODS 2)
    std::string_view prune_layer = {};  ///< parameter that is Traits::prune_layer
};

struct MethodFile {
    std::optional<MethodRow> method = std::nullopt;
    std::optional<ScorerPart> scorer = std::nullopt;
    std::optional<AllocatorPart> allocator = std::nullopt;
};

}  // namespace kvsieve
