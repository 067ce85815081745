// SPDX-License-Identifier: MIT
#include "policy/composition.h"

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "kvsieve/error.h"
#include "policy/compose.h"
#include "policy/number.h"
#include "policy/registry.h"

namespace kvsieve {
namespace {

[[noreturn]] void refuse(const std::string & sentence) {
    throw Error(ErrorCode::invalid_argument, sentence);
}

/// `listed`: only parts that a caller may name.
template <typename Part>
const Part & find_part(std::string_view name, std::optional<Part> MethodFile::*member, const char * what, bool listed) {
    std::vector<std::string> names;
    for (const MethodFile & file : method_files()) {
        const std::optional<Part> & part = file.*member;
        if (part && (part->listed || !listed)) {
            if (part->name == name) {
                return *part;
            }
            names.emplace_back(part->name);
        }
    }
    refuse("there is no " + std::string(what) + " '" + std::string(name) + "'; expected one of " + word_list(names));
}

const ScorerPart & scorer_part(std::string_view name, bool listed = false) {
    return find_part(name, &MethodFile::scorer, "scorer", listed);
}
const AllocatorPart & allocator_part(std::string_view name, bool listed = false) {
    return find_part(name, &MethodFile::allocator, "allocator", listed);
}

ParamSpec granularity_param(Granularity def) {
    return {.name = "granularity",
            .help = "one set of rows per layer, by the mean score over the KV heads, or one per KV head",
            .def = std::string(def == Granularity::layer ? "layer" : "head"),
            .choices = {"layer", "head"}};
}

/// Whether the caller chooses; otherwise the parts leave one granularity only.
bool granularity_is_free(const ScorerPart & scorer, const AllocatorPart & allocator) {
    return scorer.per_head && !allocator.heads_only && !allocator.layer_only;
}

Granularity granularity_of(const ScorerPart & scorer, const AllocatorPart & allocator, const BoundParams & params) {
    if (granularity_is_free(scorer, allocator)) {
        return static_cast<Granularity>(params.choice("granularity"));
    }
    return allocator.heads_only ? Granularity::head : Granularity::layer;
}

/// Parameters of the pair; one that both declare is one parameter.
std::vector<ParamSpec> pair_params(const ScorerPart & scorer, const AllocatorPart & allocator) {
    std::vector<ParamSpec> params = scorer.params;
    for (const ParamSpec & spec : allocator.params) {
        if (std::none_of(params.begin(), params.end(), [&](const ParamSpec & p) { return p.name == spec.name; })) {
            params.push_back(spec);
        }
    }
    if (granularity_is_free(scorer, allocator)) {
        params.push_back(granularity_param(Granularity::head));
    }
    return params;
}

/// What is the same for a published method and for a free pair.
MethodParts bind_parts(const ScorerPart & scorer, const AllocatorPart & allocator, const BoundParams & params,
                       const MethodOptions & options) {
    if (options.n_threads < 1) {
        refuse("a plan was asked for on " + std::to_string(options.n_threads) + " threads; expected at least 1");
    }
    MethodParts parts;
    parts.scorer = scorer.make(params);
    parts.allocator = allocator.make(params);
    parts.granularity = granularity_of(scorer, allocator, params);
    parts.keep_all_rows = !options.profile && options.keep == 1;
    parts.n_threads = options.n_threads;
    return parts;
}

std::unique_ptr<Method> make_published(const MethodInfo & info, const MethodRow & row, const MethodOptions & options) {
    const BoundParams params(info, options);
    const AllocatorPart & allocator = allocator_part(row.allocator);
    MethodParts parts = bind_parts(scorer_part(row.scorer), allocator, params, options);
    parts.name = row.name;
    parts.scope = row.visual ? Scope::visual : allocator.ends_stay || row.ends_stay ? Scope::middle : Scope::all;
    parts.merges = row.merges;
    if (!row.prune_layer.empty()) {
        parts.prune_layer = params.integer(std::string(row.prune_layer));
    }
    // A method that prunes keeps all tokens of a prompt without an image.
    parts.needs_visual = allocator.needs_visual || (row.visual && parts.prune_layer == 0);
    return compose(std::move(parts));
}

std::unique_ptr<Method> make_pair(const MethodInfo & info, const ScorerPart & scorer, const AllocatorPart & allocator,
                                  const MethodOptions & options) {
    const BoundParams params(info, options);
    MethodParts parts = bind_parts(scorer, allocator, params, options);
    parts.name = info.name;
    const bool visual = params.word("scope") == "visual";
    parts.scope = visual ? Scope::visual : allocator.ends_stay ? Scope::middle : Scope::all;
    parts.needs_visual = visual || allocator.needs_visual;
    return compose(std::move(parts));
}

MethodInfo pair_info(std::string_view name, const ScorerPart & scorer, const AllocatorPart & allocator) {
    MethodInfo info;
    info.name = name;
    info.summary = "A scorer and an allocator chosen by the caller.";
    info.section = "composition";
    info.keep_of = "all rows, or visual rows with scope=visual";
    info.takes_profile = allocator.takes_profile;
    info.params = pair_params(scorer, allocator);
    info.params.push_back({.name = "scope",
                           .help = "which rows compete and are counted by keep",
                           .def = std::string(scorer.visual_only ? "visual" : "all"),
                           .choices = scorer.visual_only ? std::vector<std::string>{"visual"}
                                                         : std::vector<std::string>{"all", "visual"}});
    info.make = [info, &scorer, &allocator](const MethodOptions & options) {
        return make_pair(info, scorer, allocator, options);
    };
    return info;
}

/// Throws where the allocator asks what the scorer cannot give.
void check_pair(const ScorerPart & scorer, const AllocatorPart & allocator) {
    const std::string who =
        "scorer " + std::string(scorer.name) + " with allocator " + std::string(allocator.name) + " makes no sense: ";
    if (allocator.needs_mass && !scorer.mass) {
        refuse(who + "the allocator works on shares of a layer's total score, and these scores are only an order");
    }
    if (allocator.heads_only && !scorer.per_head) {
        refuse(who +
               "the allocator divides a layer's rows among its KV heads, and the scorer does not tell them apart");
    }
}

template <typename Part>
std::vector<PartInfo> part_table(std::optional<Part> MethodFile::*member) {
    std::vector<PartInfo> out;
    for (const MethodFile & file : method_files()) {
        if (const std::optional<Part> & part = file.*member; part && part->listed) {
            out.push_back({part->name, part->summary, part->params});
        }
    }
    return out;
}

}  // namespace

MethodInfo published_info(const MethodRow & row) {
    const ScorerPart & scorer = scorer_part(row.scorer);
    const AllocatorPart & allocator = allocator_part(row.allocator);
    MethodInfo info;
    info.name = row.name;
    info.paper = row.paper;
    info.summary = row.summary;
    info.section = row.name;
    info.keep_of = !row.takes_keep ? "" : row.visual ? "visual rows" : "all rows";
    info.takes_profile = allocator.takes_profile;
    info.params = pair_params(scorer, allocator);
    info.make = [info, &row](const MethodOptions & options) { return make_published(info, row, options); };
    info.traits = info.make({})->traits();
    return info;
}

const MethodInfo & composition_info(std::string_view scorer_name, std::string_view allocator_name) {
    const ScorerPart & scorer = scorer_part(scorer_name, true);
    const AllocatorPart & allocator = allocator_part(allocator_name, true);
    check_pair(scorer, allocator);
    struct Entry {
        std::string name;  // that info.name points to
        MethodInfo info;
    };
    static std::mutex guard;
    static std::map<std::string, std::unique_ptr<Entry>> known;
    const std::string name = std::string(scorer_name) + "+" + std::string(allocator_name);
    const std::lock_guard lock(guard);
    std::unique_ptr<Entry> & entry = known[name];
    if (!entry) {
        auto fresh = std::make_unique<Entry>();
        fresh->name = name;
        fresh->info = pair_info(fresh->name, scorer, allocator);
        try {
            fresh->info.traits = fresh->info.make({})->traits();
        } catch (const Error & e) {  // the two observe what cannot be observed together
            throw Error(e.code(), name + ": " + e.what());
        }
        entry = std::move(fresh);
    }
    return entry->info;
}

std::span<const PartInfo> scorers() {
    static const std::vector<PartInfo> table = part_table(&MethodFile::scorer);
    return table;
}
std::span<const PartInfo> allocators() {
    static const std::vector<PartInfo> table = part_table(&MethodFile::allocator);
    return table;
}

std::string composition_name(std::string_view scorer, std::string_view allocator) {
    return std::string(composition_info(scorer, allocator).name);
}

}  // namespace kvsieve
