// SPDX-License-Identifier: MIT
#include "engine/kv_bound.h"

#include <algorithm>

#include "graph/prefill_attention.h"
#include "graph/query_stats.h"

namespace kvsieve {
namespace {

int64_t extents(const RaggedKvCache & cache) {
    return int64_t{cache.params().n_layer} * cache.params().n_head_kv;
}

/// Most bytes of a cache with so many rows in all extents together: arenas of whole pages with their spare rows,
/// positions, and the order that evictions need (one entry per slot of a layer; vectors that grow may double).
uint64_t bytes_of(const RaggedKvCache & cache, int64_t rows) {
    const int64_t n = rows + extents(cache) * kMaxSpareRows;
    const auto entries = static_cast<uint64_t>(n + 2 * n / cache.params().n_head_kv);
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
    return std::min(held + grown, std::max(held, session.max_rows.value_or(INT64_MAX)));
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
    return std::max(bytes_of(session.cache, rows) + LayerKv::bytes_of(session.decoder->config(), n),
                    bytes_of(session.cache, rows_at_end(session, rows, n, n_predict)));
}

uint64_t kv_bound_of_answer(const Session::Impl & session, int32_t n_predict) {
    int64_t rows = 0;
    for (int32_t il = 0; il < session.cache.params().n_layer; ++il) {
        for (int32_t g = 0; g < session.cache.params().n_head_kv; ++g) {
            rows += session.cache.n_rows(il, g);
        }
    }
    return std::max(kv_bytes_now(session),
                    bytes_of(session.cache, rows_at_end(session, rows, session.n_processed, n_predict)));
}

}  // namespace kvsieve
