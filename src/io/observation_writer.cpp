// SPDX-License-Identifier: MIT
#include "io/observation_writer.h"

#include <algorithm>
#include <string>
#include <vector>

#include "io/npz.h"
#include "kvsieve/error.h"
#include "policy/rows.h"
#include "policy/scorer.h"

namespace kvsieve {

struct ObservationWriter::Impl {
    PromptShape prompt;
    Traits traits;
    NpzSpool spool;
    std::vector<bool> written;  // [L]
    size_t n_row = 0;           // Q, known with the first layer
    bool rows_added = false;

    Impl(const std::filesystem::path & path, PromptShape prompt_, const Traits & observed)
        : prompt(std::move(prompt_)), traits(observed), spool(path), written(static_cast<size_t>(prompt.n_layer)) {}

    [[nodiscard]] static uint64_t size(int32_t n) { return static_cast<uint64_t>(n); }

    template <typename T>
    void write_all(const std::string & name, NpyType type, const std::vector<uint64_t> & shape, std::span<T> values) {
        spool.add(name, type, shape);
        spool.write(name, 0, std::as_bytes(values));
    }

    void add_prompt() {
        const std::vector<uint8_t> mask =
            prompt.visual_mask.empty() ? std::vector<uint8_t>(size(prompt.n_tokens), 0) : prompt.visual_mask;
        write_all("visual_mask", NpyType::u1, {size(prompt.n_tokens)}, std::span(mask));
        const auto scalar = [&](const std::string & name, int32_t value) {
            write_all(name, NpyType::i4, {}, std::span(&value, 1));
        };
        scalar("n_head_kv", prompt.n_head_kv);
        if (traits.query_stats) {
            write_all("rope_freqs", NpyType::f4, {prompt.rope.freqs.size()}, std::span(prompt.rope.freqs));
            scalar("rope_layout", prompt.rope.interleaved ? 1 : 0);
            scalar("next_position", prompt.next_position < 0 ? prompt.n_tokens : prompt.next_position);
        }
    }

    /// The arrays of a layer's numbers: name, shape without L, and where they are.
    struct Part {
        std::string name;
        std::vector<uint64_t> shape;
        std::span<const float> LayerObservation::*values;
        bool wanted;
    };
    [[nodiscard]] std::vector<Part> parts() const {
        const uint64_t n_head = size(prompt.n_head), n_group = size(prompt.n_head_kv), n = size(prompt.n_tokens);
        const uint64_t d = size(prompt.head_dim);
        return {{"importance", {n}, &LayerObservation::importance, traits.importance},
                {"colsum", {n_head, n}, &LayerObservation::colsum, traits.colsum},
                {"keys", {n_group, n, d}, &LayerObservation::keys, traits.keys},
                {"values", {n_group, n, d}, &LayerObservation::values, traits.values},
                {"query_mean", {n_head, d}, &LayerObservation::query_mean, traits.query_stats},
                {"query_cov", {n_head, d, d}, &LayerObservation::query_cov, traits.query_stats},
                {"probe_mean", {n_head, n}, &LayerObservation::probe_mean, traits.probes},
                {"probe_square", {n_head, n}, &LayerObservation::probe_square, traits.probes},
                {"output_norm", {n_head, n}, &LayerObservation::output_norm, traits.probes}};
    }

    [[nodiscard]] static uint64_t product(const std::vector<uint64_t> & shape) {
        uint64_t n = 1;
        for (const uint64_t dim : shape) {
            n *= dim;
        }
        return n;
    }

    void add_rows(int32_t il, const LayerObservation & obs) {
        const uint64_t n_head = size(prompt.n_head), n = size(prompt.n_tokens);
        const auto positions = obs.row_positions;
        if (!rows_added) {
            n_row = positions.size();
            rows_added = true;
            spool.add("rows", NpyType::f4, {size(prompt.n_layer), n_head, n_row, n});
        }
        if (positions.size() != n_row || n_row == 0 || positions.back() != prompt.n_tokens - 1 ||
            positions.front() != prompt.n_tokens - static_cast<int32_t>(n_row)) {
            throw Error(ErrorCode::bad_input, "the observation of layer " + std::to_string(il) + " has " +
                                                  std::to_string(positions.size()) +
                                                  " attention rows in array rows; expected those of the last " +
                                                  std::to_string(n_row) + " prompt tokens, as in the other layers");
        }
        uint64_t i = 0;  // queries in order, all heads of one before the next
        for_each_row(prompt, il, obs, positions, [&](size_t h, std::span<const float> row) {
            const uint64_t q = i++ / n_head;
            spool.write("rows", ((size(il) * n_head + h) * n_row + q) * n, std::as_bytes(row));
        });
    }
};

ObservationWriter::ObservationWriter(const std::filesystem::path & path, const PromptShape & prompt,
                                     const Traits & observed_traits)
    : impl_(std::make_unique<Impl>(path, prompt, observed_traits)) {
    impl_->add_prompt();
    for (const Impl::Part & part : impl_->parts()) {
        if (part.wanted) {
            std::vector<uint64_t> shape = {Impl::size(prompt.n_layer)};
            shape.insert(shape.end(), part.shape.begin(), part.shape.end());
            impl_->spool.add(part.name, NpyType::f4, shape);
        }
    }
}

ObservationWriter::~ObservationWriter() = default;

void ObservationWriter::add(int32_t il, const LayerObservation & obs) {
    if (il < 0 || il >= impl_->prompt.n_layer || impl_->written[static_cast<size_t>(il)]) {
        throw Error(ErrorCode::invalid_argument, "layer " + std::to_string(il) + " of " +
                                                     std::to_string(impl_->prompt.n_layer) +
                                                     " was observed; expected each layer once");
    }
    for (const Impl::Part & part : impl_->parts()) {
        if (part.wanted) {
            const uint64_t n = Impl::product(part.shape);
            const auto values = observed(obs.*part.values, n, part.name, il);
            impl_->spool.write(part.name, Impl::size(il) * n, std::as_bytes(values));
        }
    }
    if (impl_->traits.rows != RowsWanted::none) {
        impl_->add_rows(il, obs);
    }
    impl_->written[static_cast<size_t>(il)] = true;
}

void ObservationWriter::finish() {
    const auto missing = std::find(impl_->written.begin(), impl_->written.end(), false);
    if (missing != impl_->written.end()) {
        throw Error(ErrorCode::invalid_argument, "layer " + std::to_string(missing - impl_->written.begin()) + " of " +
                                                     std::to_string(impl_->prompt.n_layer) +
                                                     " was not observed; expected all layers");
    }
    impl_->spool.finish();
}

}  // namespace kvsieve
