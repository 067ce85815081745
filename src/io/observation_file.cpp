// SPDX-License-Identifier: MIT
#include "io/observation_file.h"

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "io/npz.h"
#include "kvsieve/error.h"

namespace kvsieve {
namespace {

/// Arrays of an obs.npz and their dimensions, a letter each: L layers, H query heads, G KV heads, T prompt tokens,
/// Q observed rows, d head size, m rotated pairs.
struct ArrayRow {
    std::string_view name;
    std::string_view dims;
};
constexpr std::array<ArrayRow, 17> kArrays = {{
    {"importance", "LT"},
    {"colsum", "LHT"},
    {"rows", "LHQT"},
    {"keys", "LGTd"},
    {"values", "LGTd"},
    {"visual_mask", "T"},
    {"attention", "LHTT"},
    {"queries", "LHTd"},
    {"query_mean", "LHd"},
    {"query_cov", "LHdd"},
    {"probe_mean", "LHT"},
    {"probe_square", "LHT"},
    {"output_norm", "LHT"},
    {"rope_freqs", "m"},
    {"rope_layout", ""},
    {"next_position", ""},
    {"n_head_kv", ""},
}};

[[noreturn]] void fail(const NpzFile & file, std::string_view name, const std::string & why) {
    throw Error(ErrorCode::bad_input, "array " + std::string(name) + " of " + file.path() + ": " + why);
}

/// Dimensions that all arrays of a file agree on.
class Dims {
  public:
    explicit Dims(const NpzFile & file) {
        for (const ArrayRow & row : kArrays) {
            if (file.has(std::string(row.name))) {
                add(file, row);
            }
        }
    }

    /// 0 where no array has this dimension.
    [[nodiscard]] int32_t operator[](char letter) const {
        const auto found = size_.find(letter);
        return found == size_.end() ? 0 : static_cast<int32_t>(found->second.n);
    }

  private:
    struct Known {
        uint64_t n = 0;
        std::string_view from;  // the array that said so
    };

    void add(const NpzFile & file, const ArrayRow & row) {
        const std::vector<uint64_t> & shape = file.header(std::string(row.name)).shape;
        std::string letters = "[";
        for (const char letter : row.dims) {
            letters += std::string(letters.size() > 1 ? ", " : "") + letter;
        }
        if (shape.size() != row.dims.size()) {
            fail(file, row.name,
                 "its shape is " + shape_text(shape) + "; expected " +
                     (row.dims.empty() ? std::string("a scalar")
                                       : std::to_string(row.dims.size()) + " dimensions " + letters + "]"));
        }
        for (size_t i = 0; i < shape.size(); ++i) {
            if (shape[i] < 1 || shape[i] > static_cast<uint64_t>(std::numeric_limits<int32_t>::max())) {
                fail(file, row.name, "its shape is " + shape_text(shape) + "; expected no dimension of that size");
            }
            const Known known = size_.try_emplace(row.dims[i], Known{shape[i], row.name}).first->second;
            if (known.n != shape[i]) {
                fail(file, row.name,
                     "its shape " + shape_text(shape) + " has " + std::to_string(shape[i]) + " as " + row.dims[i] +
                         "; expected " + std::to_string(known.n) + ", as in array " + std::string(known.from));
            }
        }
    }

    std::map<char, Known> size_;
};

std::vector<float> read_attention(const NpzFile & file, const std::string & name) {
    std::vector<float> out = file.read_floats(name);
    const auto bad = std::find_if(out.begin(), out.end(), [](float x) { return x < 0; });
    if (bad != out.end()) {
        fail(file, name, "it is negative at element " + std::to_string(bad - out.begin()) + "; expected at least 0");
    }
    return out;
}

/// Rows [L, H, n, T] of the last n queries may not look ahead: misplaced rows would go unnoticed otherwise.
void check_causal(const NpzFile & file, const std::string & name, const std::vector<float> & rows, size_t n,
                  size_t n_tokens) {
    for (size_t i = 0; i < rows.size() / n_tokens; ++i) {
        const size_t query = n_tokens - n + i % n;
        for (size_t k = query + 1; k < n_tokens; ++k) {
            if (rows[i * n_tokens + k] != 0) {
                fail(file, name,
                     "the query at position " + std::to_string(query) + " attends to position " + std::to_string(k) +
                         " ahead of it; expected causal rows of the last " + std::to_string(n) + " prompt tokens");
            }
        }
    }
}

}  // namespace

struct ObservationFile::Impl {
    PromptShape prompt;
    int32_t n_row = 0;  ///< Q
    // Arrays in full; empty where neither wanted nor needed for what is wanted.
    std::vector<float> importance, colsum, rows, keys, values, attention, queries, query_mean, query_cov;
    std::vector<float> probe_mean, probe_square, output_norm;
    std::vector<int32_t> row_positions;

    class Layer final : public LayerObservation {
      public:
        Layer(const Impl & impl, size_t il) : impl_(impl), il_(il) {
            importance = part(impl.importance);
            colsum = part(impl.colsum);
            keys = part(impl.keys);
            values = part(impl.values);
            queries = part(impl.queries);
            query_mean = part(impl.query_mean);
            query_cov = part(impl.query_cov);
            probe_mean = part(impl.probe_mean);
            probe_square = part(impl.probe_square);
            output_norm = part(impl.output_norm);
            row_positions = impl.row_positions;
        }

        void rows(std::span<const int32_t> positions, std::vector<float> & out) const override {
            const auto n_tokens = static_cast<size_t>(impl_.prompt.n_tokens);
            const auto n_last = static_cast<size_t>(impl_.n_row);
            const auto n_head = static_cast<size_t>(impl_.prompt.n_head);
            out.clear();
            for (size_t h = 0; h < n_head; ++h) {
                for (const int32_t position : positions) {
                    if (!std::binary_search(row_positions.begin(), row_positions.end(), position)) {
                        throw Error(ErrorCode::invalid_argument,
                                    "no attention row of position " + std::to_string(position) + " is observed");
                    }
                    const auto q = static_cast<size_t>(position);
                    const bool recent = !impl_.rows.empty() && q >= n_tokens - n_last;
                    const auto from = recent ? part(impl_.rows).subspan((h * n_last + q + n_last - n_tokens) * n_tokens)
                                             : part(impl_.attention).subspan((h * n_tokens + q) * n_tokens);
                    out.insert(out.end(), from.begin(), from.begin() + static_cast<std::ptrdiff_t>(n_tokens));
                }
            }
        }

      private:
        [[nodiscard]] std::span<const float> part(const std::vector<float> & array) const {
            const size_t size = array.size() / static_cast<size_t>(impl_.prompt.n_layer);
            return std::span(array).subspan(il_ * size, size);
        }

        const Impl & impl_;
        size_t il_;
    };
    std::vector<std::unique_ptr<Layer>> layers;

    void load_shape(const NpzFile & file, std::string_view method, const Traits & wanted);
    void load_rows(const NpzFile & file, const Traits & wanted);
    void load_sums(const NpzFile & file, const Traits & wanted);
    void load_queries(const NpzFile & file, std::string_view method);
    void need(const NpzFile & file, std::string_view method, const std::string & name,
              std::initializer_list<std::string> instead = {}) const;
};

void ObservationFile::Impl::need(const NpzFile & file, std::string_view method, const std::string & name,
                                 std::initializer_list<std::string> instead) const {
    std::string others;
    for (const std::string & other : instead) {
        if (file.has(other)) {
            return;
        }
        others += (others.empty() ? " (or " : " or ") + other;
    }
    if (!file.has(name)) {
        throw Error(ErrorCode::bad_input, file.path() + " has no array " + name + (others.empty() ? "" : others + ")") +
                                              ", which method " + std::string(method) + " needs");
    }
}

void ObservationFile::Impl::load_shape(const NpzFile & file, std::string_view method, const Traits & wanted) {
    const Dims dims(file);
    if (dims['L'] == 0 || dims['T'] == 0) {
        throw Error(ErrorCode::bad_input,
                    file.path() +
                        " has no array that tells the numbers of layers and prompt tokens; expected one of "
                        "importance, colsum, rows, keys, values, attention");
    }
    prompt.n_layer = dims['L'];
    prompt.n_tokens = dims['T'];
    prompt.n_head = dims['H'];
    prompt.n_head_kv = dims['G'];
    prompt.head_dim = dims['d'];
    n_row = dims['Q'];
    if (n_row > prompt.n_tokens) {
        fail(file, "rows",
             "it has " + std::to_string(n_row) + " rows; expected at most " + std::to_string(prompt.n_tokens) +
                 ", one per prompt token");
    }
    if (file.has("n_head_kv")) {
        const int64_t n = file.read_integers("n_head_kv").front();
        if (n < 1 || n > std::numeric_limits<int32_t>::max() || (prompt.n_head_kv != 0 && n != prompt.n_head_kv)) {
            fail(file, "n_head_kv",
                 "it is " + std::to_string(n) + "; expected " +
                     (prompt.n_head_kv != 0 ? std::to_string(prompt.n_head_kv) + ", as in keys"
                                            : std::string("at least 1")));
        }
        prompt.n_head_kv = static_cast<int32_t>(n);
    }
    if (prompt.n_head > 0 && prompt.n_head_kv > 0 && prompt.n_head % prompt.n_head_kv != 0) {
        throw Error(ErrorCode::bad_input, file.path() + " has " + std::to_string(prompt.n_head) + " query heads and " +
                                              std::to_string(prompt.n_head_kv) +
                                              " KV heads; expected a whole number of query heads per KV head");
    }
    if (wanted.modality) {
        need(file, method, "visual_mask");
    }
    if (file.has("visual_mask")) {
        prompt.visual_mask = file.read_bytes("visual_mask");
        const auto bad =
            std::find_if(prompt.visual_mask.begin(), prompt.visual_mask.end(), [](auto x) { return x > 1; });
        if (bad != prompt.visual_mask.end()) {
            fail(file, "visual_mask",
                 "it is " + std::to_string(*bad) + " at position " + std::to_string(bad - prompt.visual_mask.begin()) +
                     "; expected 0 or 1");
        }
    }
}

void ObservationFile::Impl::load_rows(const NpzFile & file, const Traits & wanted) {
    const auto n_tokens = static_cast<size_t>(prompt.n_tokens);
    if (file.has("rows")) {
        rows = read_attention(file, "rows");
        check_causal(file, "rows", rows, static_cast<size_t>(n_row), n_tokens);
    }
    int32_t first_wanted = std::max(0, prompt.n_tokens - wanted.window);
    if (wanted.rows == RowsWanted::text_after_visual) {
        const auto last = std::find(prompt.visual_mask.rbegin(), prompt.visual_mask.rend(), 1);
        first_wanted = static_cast<int32_t>(prompt.visual_mask.rend() - last);
    }
    int32_t first = prompt.n_tokens - n_row;
    if (file.has("attention") && first > first_wanted) {
        attention = read_attention(file, "attention");
        check_causal(file, "attention", attention, n_tokens, n_tokens);
        first = 0;
    }
    for (int32_t position = first; position < prompt.n_tokens; ++position) {
        row_positions.push_back(position);
    }
}

void ObservationFile::Impl::load_sums(const NpzFile & file, const Traits & wanted) {
    const auto n_layer = static_cast<size_t>(prompt.n_layer), n_tokens = static_cast<size_t>(prompt.n_tokens);
    const auto n_head = static_cast<size_t>(prompt.n_head);
    const bool importance_absent = wanted.importance && !file.has("importance");
    if (wanted.importance && !importance_absent) {
        importance = read_attention(file, "importance");
    }
    if ((wanted.colsum || importance_absent) && file.has("colsum")) {
        colsum = read_attention(file, "colsum");
    } else if (wanted.colsum || importance_absent) {  // colsum[l,h,k] = sum over q of A[l,h,q,k]
        if (attention.empty()) {
            attention = read_attention(file, "attention");
            check_causal(file, "attention", attention, n_tokens, n_tokens);
        }
        colsum.resize(n_layer * n_head * n_tokens);
        std::vector<double> sum(n_tokens);
        for (size_t lh = 0; lh < n_layer * n_head; ++lh) {
            std::fill(sum.begin(), sum.end(), 0.0);
            for (size_t q = 0; q < n_tokens; ++q) {
                for (size_t k = 0; k <= q; ++k) {
                    sum[k] += static_cast<double>(attention[(lh * n_tokens + q) * n_tokens + k]);
                }
            }
            std::transform(sum.begin(), sum.end(), colsum.begin() + static_cast<std::ptrdiff_t>(lh * n_tokens),
                           [](double x) { return static_cast<float>(x); });
        }
    }
    if (importance_absent) {  // I[l,k] = (1/H) sum over h of colsum[l,h,k]
        for (size_t l = 0; l < n_layer; ++l) {
            for (size_t k = 0; k < n_tokens; ++k) {
                double sum = 0;
                for (size_t h = 0; h < n_head; ++h) {
                    sum += static_cast<double>(colsum[(l * n_head + h) * n_tokens + k]);
                }
                importance.push_back(static_cast<float>(sum / static_cast<double>(n_head)));
            }
        }
    }
}

void ObservationFile::Impl::load_queries(const NpzFile & file, std::string_view method) {
    need(file, method, "queries", {"query_mean"});
    if (file.has("queries")) {
        queries = file.read_floats("queries");
    } else {
        query_mean = file.read_floats("query_mean");
        if (file.has("query_cov")) {  // a method without covariance does not look at it; the others name it
            query_cov = file.read_floats("query_cov");
        }
    }
    need(file, method, "rope_freqs");
    prompt.rope.freqs = file.read_floats("rope_freqs");
    const auto scalar = [&](const std::string & name, int64_t def, int64_t max) {
        const int64_t value = file.has(name) ? file.read_integers(name).front() : def;
        if (value < 0 || value > max) {
            fail(file, name, "it is " + std::to_string(value) + "; expected 0 to " + std::to_string(max));
        }
        return static_cast<int32_t>(value);
    };
    prompt.rope.interleaved = scalar("rope_layout", 0, 1) == 1;
    prompt.next_position = scalar("next_position", prompt.n_tokens, std::numeric_limits<int32_t>::max() / 2);
}

ObservationFile::ObservationFile(const std::filesystem::path & path, std::string_view method, const Traits & wanted)
    : impl_(std::make_unique<Impl>()) {
    const NpzFile file(path);
    impl_->load_shape(file, method, wanted);
    if (wanted.rows != RowsWanted::none) {
        impl_->need(file, method, "rows", {"attention"});
        impl_->load_rows(file, wanted);
    }
    if (wanted.colsum) {
        impl_->need(file, method, "colsum", {"attention"});
    }
    if (wanted.importance) {
        impl_->need(file, method, "importance", {"colsum", "attention"});
    }
    impl_->load_sums(file, wanted);
    if (wanted.keys) {
        impl_->need(file, method, "keys");
        impl_->keys = file.read_floats("keys");
    }
    if (wanted.values) {
        impl_->need(file, method, "values");
        impl_->values = file.read_floats("values");
    }
    if (wanted.query_stats) {
        impl_->load_queries(file, method);
    }
    if (wanted.probes) {
        for (auto & [name, array] :
             {std::pair{"probe_mean", &Impl::probe_mean}, std::pair{"probe_square", &Impl::probe_square},
              std::pair{"output_norm", &Impl::output_norm}}) {
            impl_->need(file, method, name);
            (*impl_).*array = read_attention(file, name);
        }
    }
    for (size_t il = 0; il < static_cast<size_t>(impl_->prompt.n_layer); ++il) {
        impl_->layers.push_back(std::make_unique<Impl::Layer>(*impl_, il));
    }
}

ObservationFile::~ObservationFile() = default;
ObservationFile::ObservationFile(ObservationFile &&) noexcept = default;
ObservationFile & ObservationFile::operator=(ObservationFile &&) noexcept = default;

const PromptShape & ObservationFile::prompt() const {
    return impl_->prompt;
}
const LayerObservation & ObservationFile::layer(int32_t il) const {
    return *impl_->layers.at(static_cast<size_t>(il));
}

Plan plan_from_file(const Method & method, const ObservationFile & file) {
    method.check(file.prompt());
    std::vector<LayerScore> scores;
    scores.reserve(static_cast<size_t>(file.prompt().n_layer));
    for (int32_t il = 0; il < file.prompt().n_layer; ++il) {
        scores.push_back(method.score(file.prompt(), il, file.layer(il)));
    }
    return method.plan(file.prompt(), scores);
}

}  // namespace kvsieve
