// SPDX-License-Identifier: MIT
#include "engine/kv_bound.h"

#include <algorithm>

#include "engine/row_cap.h"
#include "graph/prefill_attention.h"
#include "graph/query_stats.h"

namespace kvsieve {
namespace {

int64_t extents(const RaggedKvCache & cache) {
    return int64_t{cache.params().n_layer} * cache.params().n_head_kv;
}

/// Most bytes of a cache with so many rows in all extents together and at most n_spare more in each: arenas of whole
/// pages, positions, and the order that evictions need (one entry per slot of a layer).
uint64_t bytes_of(const RaggedKvCache & cache, int64_t rows, int32_t n_spare) {
    const int64_t n = rows + extents(cache) * n_spare;
    const auto entries = static_cast<uint64_t>(n + n / cache.params().n_head_kv);
    return static_cast<uint64_t>(n) * 2 * cache.row_bytes() +
           static_cast<uint64_t>(cache.params().n_layer) * Arena::page_round(1) + entries * sizeof(int32_t);
}

/// Rows after n_predict tokens behind `held` rows of n_before tokens.
int64_t rows_at_end(const Session::Impl & session, int64_t held, int32_t n_before, int32_t n_predict) {
    const int64_t per_token = extents(session.cache);
    int64_t grown = per_token * std::clamp(n_predict, 0, std::max(session.n_ctx - n_before, 0));
    if (session.eviction.capped()) {  // the policy works after a row was appended
        grown = std::min(grown, std::max(per_token * (int64_t{session.options.decode_cap} + 1) - held, per_token));
    }
    return std::min(held + grown, std::max(held, byte_cap_rows(session.options, session.cache).value_or(INT64_MAX)));
}

}  // namespace

uint64_t kv_bytes_now(const Session::Impl & session) {
    return session.cache.bytes_reserved() + session.cache.index_bytes() +
           (session.arriving ? session.arriving->work.layer_kv_bytes() : 0);
}

uint64_t kv_bound_of_prompt(Session::Impl & session, const Prompt & prompt, int32_t n_predict) {
    PromptShape asked = session.shape_of(prompt);
    const int32_t n = asked.n_tokens;
    const PlanMaker maker = session.choose_method(asked, n_predict);
    int64_t rows = int64_t{n} * extents(session.cache);
    if (!maker.keeps_everything && !maker.planner) {
        if (maker.method->traits().query_stats) {
            asked.rope = rope_shape(*session.decoder);
        }
        maker.method->check(asked);
        rows = count_rows_beforehand(*maker.method, asked).value_or(rows);
    }
    return std::max(
        bytes_of(session.cache, rows, kMaxSpareRows) + LayerKv::bytes_of(session.decoder->config(), n),
        bytes_of(session.cache, rows_at_end(session, rows, n, n_predict), row_unit(session.cache.row_bytes())));
}

uint64_t bind_answer(Session::Impl & session, int32_t n_predict) {
    RaggedKvCache & cache = session.cache;
    const int32_t n_head_kv = cache.params().n_head_kv;
    const int32_t n_new = std::clamp(n_predict, 0, std::max(session.n_ctx - session.n_processed, 0));
    uint64_t bytes = 0;
    std::vector<int32_t> most(static_cast<size_t>(n_head_kv));
    for (int32_t il = 0; il < cache.params().n_layer; ++il) {
        int64_t rows = 0, longest = 0;
        uint64_t arena = 0;
        for (int32_t g = 0; g < n_head_kv; ++g) {
            const int32_t head = session.eviction.most_rows(cache, il, g, n_new, session.n_processed);
            most[static_cast<size_t>(g)] = head;
            const size_t row_bytes = cache.k_rows(il, g).row_bytes;
            const int32_t unit = row_unit(row_bytes), room = (head + unit - 1) / unit * unit;
            rows += room;
            arena += static_cast<size_t>(room) * 2 * row_bytes;
            longest = std::max<int64_t>(longest, room);
        }
        cache.expect_rows(il, most);
        bytes += Arena::page_round(arena) + static_cast<uint64_t>(rows + longest) * sizeof(int32_t);
    }
    return std::max(kv_bytes_now(session), bytes);
}

}  // namespace kvsieve
