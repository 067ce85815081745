// SPDX-License-Identifier: MIT
#include "graph/probes.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <iterator>
#include <utility>

#include "kvsieve/error.h"
#include "policy/parallel.h"

namespace kvsieve {
namespace {

constexpr int64_t kBlockBytes = int64_t{64} << 20;

/// So many columns of `per_column` floats fit into a block.
int64_t block_columns(int64_t per_column, int64_t n) {
    return std::clamp<int64_t>(kBlockBytes / (per_column * static_cast<int64_t>(sizeof(float))), 1, n);
}

/// What the blocks of probes of one layer have in common.
struct ProbeBlocks {
    const DecoderConfig * config;
    const LayerKv * kv;
    int32_t n_probe;
    std::vector<float> once, twice;  // [n_head][n_probe] weights of attention and of its square
    ProbeAttention out;
    BlockWork work;
};

/// Attention of rotated probes q [head_dim, n_probe, n_head]; one head is one thread's work, its blocks in order.
void attend_probes(ggml_tensor * dst, int ith, int nth, void * userdata) {
    auto & all = *static_cast<ProbeBlocks *>(userdata);
    const ggml_tensor * q = dst->src[0];
    const DecoderConfig & c = *all.config;
    const int32_t n_kv = all.kv->n_tokens();
    for (int32_t h = ith; h < c.n_head; h += nth) {
        const auto head = static_cast<size_t>(h);
        for (int32_t first = 0; first < all.n_probe; first += kQueryBlock) {
            const size_t at = head * static_cast<size_t>(all.n_probe) + static_cast<size_t>(first);
            const auto * queries =
                static_cast<const char *>(q->data) + head * q->nb[2] + static_cast<size_t>(first) * q->nb[1];
            attend_block(
                {.head_dim = c.head_dim,
                 .n_rows = n_kv,
                 .first = n_kv - 1,
                 .n_query = std::min(kQueryBlock, all.n_probe - first),
                 .k = all.kv->keys() + head / static_cast<size_t>(c.n_head / c.n_head_kv) * all.kv->head_stride(),
                 .q = reinterpret_cast<const float *>(queries),
                 .q_stride = q->nb[1] / sizeof(float),
                 .scale = c.kq_scale,
                 .sums = all.out.mean.data() + head * static_cast<size_t>(n_kv),
                 .sum_weights = all.once.data() + at,
                 .squares = all.out.square.data() + head * static_cast<size_t>(n_kv),
                 .square_weights = all.twice.data() + at},
                all.work.of(ith));
        }
    }
}

/// Norms over the second dimension of x [n, d, n_head] into a [n_head][n_tokens] array, from column `first` on.
struct Norms {
    float * out;
    int64_t first, n_tokens;
};

void add_norms(ggml_tensor * dst, const ggml_tensor * x, int ith, int nth, void * userdata) {
    (void)dst;
    const auto & norms = *static_cast<const Norms *>(userdata);
    const int64_t n = x->ne[0];
    for (int64_t h = ith; h < x->ne[2]; h += nth) {
        float * out = norms.out + h * norms.n_tokens + norms.first;
        for (int64_t i = 0; i < x->ne[1]; ++i) {
            const auto * row =
                reinterpret_cast<const float *>(static_cast<const char *>(x->data) + static_cast<size_t>(h) * x->nb[2] +
                                                static_cast<size_t>(i) * x->nb[1]);
            for (int64_t k = 0; k < n; ++k) {
                out[k] += row[k] * row[k];
            }
        }
        std::transform(out, out + n, out, [](float sum) { return std::sqrt(sum); });
    }
}

constexpr int64_t kGramRows = 8;  // that are added together
using GramRows = std::make_index_sequence<kGramRows>;

/// gram [d][d] += R^T R of kGramRows rows R, `stride` floats apart; the upper half only.
template <size_t... r>
void add_products(std::index_sequence<r...> /*rows*/, const float * rows, size_t stride, size_t d, float * gram) {
    const float * const row[] = {rows + r * stride...};
    for (size_t i = 0; i < d; ++i) {
        const float x[] = {row[r][i]...};
        float * const to = gram + i * d;
        for (size_t j = i; j < d; ++j) {
            to[j] += (... + (x[r] * row[r][j]));
        }
    }
}

/// The upper factor F = L^T of a symmetric matrix G = L L^T, of which the upper half is read, in place; a direction
/// without any size gets zeros.
void cholesky(std::vector<double> & g, size_t d) {
    double most = 0;
    for (size_t i = 0; i < d; ++i) {
        most = std::max(most, g[i * d + i]);
    }
    for (size_t i = 0; i < d; ++i) {
        for (size_t k = 0; k < i; ++k) {
            const double f = g[k * d + i];
            for (size_t j = i; j < d; ++j) {
                g[i * d + j] -= f * g[k * d + j];
            }
        }
        const double pivot = g[i * d + i];
        const double scale = pivot > 1e-12 * most ? 1.0 / std::sqrt(pivot) : 0.0;
        for (size_t j = 0; j < d; ++j) {
            g[i * d + j] = j < i ? 0.0 : g[i * d + j] * scale;
        }
    }
}

}  // namespace

ProbeAttention probe_attention(GraphRunner & runner, const DecoderConfig & config, const LayerKv & kv,
                               const float * factors, const LayerProbes & probes, int32_t next_position) {
    const int64_t n_probe = probes.n, n_head = config.n_head;
    const auto n_sums = static_cast<size_t>(n_head) * static_cast<size_t>(kv.n_tokens());
    ProbeBlocks blocks{&config, &kv, probes.n, {}, {}, {}, {}};
    blocks.out.mean.assign(n_sums, 0.0F);
    blocks.out.square.assign(n_sums, 0.0F);
    std::transform(probes.weights.begin(), probes.weights.end(), probes.shares.begin(), std::back_inserter(blocks.once),
                   std::multiplies<>());
    std::transform(blocks.once.begin(), blocks.once.end(), probes.shares.begin(), std::back_inserter(blocks.twice),
                   std::multiplies<>());
    blocks.work.reserve(runner.n_threads(), config.head_dim, kv.n_tokens());
    std::vector<int32_t> positions;
    std::transform(probes.offsets.begin(), probes.offsets.end(), std::back_inserter(positions),
                   [&](int32_t offset) { return next_position + offset; });
    runner.run(32, [&](GraphBuilder & b) {
        ggml_tensor * q = b.external(probes.type, config.head_dim, n_probe, n_head, probes.probe_bytes,
                                     probes.head_bytes, const_cast<std::byte *>(probes.queries));
        q = ggml_cpy(b.ctx, q, ggml_new_tensor_3d(b.ctx, GGML_TYPE_F32, config.head_dim, n_probe, n_head));
        ggml_tensor * pos = b.external(GGML_TYPE_I32, n_probe * n_head, 1, 1, positions.data());
        ggml_tensor * f = factors == nullptr
                              ? nullptr
                              : b.external(GGML_TYPE_F32, config.rope.n_dims / 2, 1, 1, const_cast<float *>(factors));
        q = rope(b, config.rope, ggml_reshape_3d(b.ctx, q, config.head_dim, 1, n_probe * n_head), pos, f);
        q = ggml_reshape_3d(b.ctx, q, config.head_dim, n_probe, n_head);
        b.expand(ggml_custom_4d(b.ctx, GGML_TYPE_F32, 1, 1, 1, 1, &q, 1, attend_probes, GGML_N_TASKS_MAX, &blocks));
    });
    return std::move(blocks.out);
}

OutputFactors::OutputFactors(const Decoder & decoder, int32_t n_threads)
    : factors_(static_cast<size_t>(decoder.config().n_layer)) {
    const DecoderConfig & config = decoder.config();
    const auto d = static_cast<size_t>(config.head_dim), n_head = static_cast<size_t>(config.n_head);
    parallel_for(factors_.size(), n_threads, [&](size_t il) {
        const ggml_tensor * w = decoder.output_projection(static_cast<int32_t>(il));
        const auto to_float = ggml_get_type_traits(w->type)->to_float;
        const size_t width = n_head * d;
        std::vector<float> rows(kGramRows * width), gram(n_head * d * d, 0.0F);
        for (int64_t first = 0; first < w->ne[1]; first += kGramRows) {
            const auto n = std::min<int64_t>(kGramRows, w->ne[1] - first);
            for (int64_t e = 0; e < n; ++e) {
                const auto * stored = static_cast<const char *>(w->data) + static_cast<size_t>(first + e) * w->nb[1];
                float * row = rows.data() + static_cast<size_t>(e) * width;
                if (w->type == GGML_TYPE_F32) {
                    std::copy_n(reinterpret_cast<const float *>(stored), width, row);
                } else {
                    to_float(stored, row, static_cast<int64_t>(width));
                }
            }
            std::fill(rows.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(n) * width), rows.end(), 0.0F);
            for (size_t h = 0; h < n_head; ++h) {
                add_products(GramRows(), rows.data() + h * d, width, d, gram.data() + h * d * d);
            }
        }
        std::vector<double> one;
        for (size_t h = 0; h < n_head; ++h) {
            const auto from = gram.begin() + static_cast<std::ptrdiff_t>(h * d * d);
            one.assign(from, from + static_cast<std::ptrdiff_t>(d * d));
            cholesky(one, d);
            std::transform(one.begin(), one.end(), from, [](double x) { return static_cast<float>(x); });
        }
        factors_[il] = std::move(gram);
    });
}

std::vector<float> OutputFactors::norms(GraphRunner & runner, const DecoderConfig & config, const LayerKv & kv,
                                        int32_t il) const {
    const int64_t d = config.head_dim, n_head = config.n_head, n_kv = kv.n_tokens();
    std::vector<float> out(static_cast<size_t>(n_head * n_kv), 0.0F);
    const int64_t block = block_columns(n_head * d, n_kv);
    for (int64_t first = 0; first < n_kv; first += block) {
        Norms norms{out.data(), first, n_kv};
        runner.run(16, [&](GraphBuilder & b) {
            ggml_tensor * all = kv.value_view(b, static_cast<int32_t>(n_kv));
            ggml_tensor * values = ggml_view_3d(b.ctx, all, d, std::min(block, n_kv - first), config.n_head_kv,
                                                all->nb[1], all->nb[2], static_cast<size_t>(first) * all->nb[1]);
            ggml_tensor * f =
                b.external(GGML_TYPE_F32, d, d, n_head, const_cast<float *>(factors_[static_cast<size_t>(il)].data()));
            ggml_tensor * x = ggml_mul_mat(b.ctx, values, f);
            ggml_prec_set_acc(x, GGML_PREC_F32);
            b.expand(ggml_map_custom1_inplace(b.ctx, x, add_norms, GGML_N_TASKS_MAX, &norms));
        });
    }
    return out;
}

ProbeFile::ProbeFile(const std::filesystem::path & path, const DecoderConfig & config,
                     const std::string & model_fingerprint)
    : file_(path), tensors_(file_) {
    const auto refuse = [&](const std::string & what) {
        throw Error(ErrorCode::bad_input, path.string() + ": " + what);
    };
    if (const std::string arch = file_.get_str("general.architecture", ""); arch != kProbesArchitecture) {
        refuse("general.architecture is \"" + arch + "\", expected kvsieve-probes (kvsieve profile --method sieve)");
    }
    if (const uint32_t version = file_.get_u32("kvsieve.probes.version"); version != kProbesVersion) {
        refuse("the probes have version " + std::to_string(version) + ", expected " + std::to_string(kProbesVersion));
    }
    if (const std::string made_for = file_.get_str("kvsieve.probes.model_fingerprint"); made_for != model_fingerprint) {
        refuse("the probes were recorded with the model with fingerprint " + made_for + ", this one has " +
               model_fingerprint);
    }
    const uint32_t n = file_.get_u32("kvsieve.probes.n_probe");
    if (n < 1 || n > 65536) {
        refuse("there are " + std::to_string(n) + " probes, expected 1 to 65536");
    }
    n_probe_ = static_cast<int32_t>(n);
    n_rows_ = std::max(file_.get_u32("kvsieve.probes.n_rows", n), 1U);
    n_samples_ = static_cast<int32_t>(std::min(file_.get_u32("kvsieve.probes.n_samples", 0), uint32_t{INT32_MAX}));
    for (int32_t il = 0; il < config.n_layer; ++il) {
        const std::string blk = "blk." + std::to_string(il) + ".";
        const int64_t n_head = config.n_head;
        const auto tensor = [&](const char * what, ggml_type type, std::initializer_list<int64_t> ne) {
            ggml_tensor * found = tensors_.require(blk + what, ne);
            if (found->type != type) {
                refuse("the tensor " + blk + what + " has type " + ggml_type_name(found->type) + ", expected " +
                       ggml_type_name(type));
            }
            return found;
        };
        const auto n_list = static_cast<size_t>(n_head * n_probe_);
        LayerProbes layer;
        const ggml_tensor * q = tensor("probe_q", GGML_TYPE_F16, {config.head_dim, n_probe_, n_head});
        layer.type = q->type;
        layer.queries = static_cast<const std::byte *>(q->data);
        layer.n = n_probe_;
        layer.probe_bytes = q->nb[1];
        layer.head_bytes = q->nb[2];
        layer.offsets = {static_cast<const int32_t *>(tensor("probe_offset", GGML_TYPE_I32, {n_probe_, n_head})->data),
                         n_list};
        layer.weights = {static_cast<const float *>(tensor("probe_weight", GGML_TYPE_F32, {n_probe_, n_head})->data),
                         n_list};
        layer.shares = {static_cast<const float *>(tensor("probe_share", GGML_TYPE_F32, {n_probe_, n_head})->data),
                        n_list};
        const auto in = [](auto least, auto most) { return [=](auto x) { return x >= least && x <= most; }; };
        std::vector<float> queries(n_list * static_cast<size_t>(config.head_dim));
        ggml_fp16_to_fp32_row(static_cast<const ggml_fp16_t *>(q->data), queries.data(),
                              static_cast<int64_t>(queries.size()));
        if (!std::all_of(queries.begin(), queries.end(), [](float x) { return std::isfinite(x); })) {
            refuse("the tensor " + blk + "probe_q has a number that is not finite");
        }
        if (!std::all_of(layer.offsets.begin(), layer.offsets.end(), in(0, 1 << 20))) {
            refuse("the tensor " + blk + "probe_offset has a number that is not in [0, 1048576]");
        }
        if (!std::all_of(layer.weights.begin(), layer.weights.end(), in(0.0F, 1.0F)) ||
            !std::all_of(layer.shares.begin(), layer.shares.end(), in(0.0F, 1.0F))) {
            refuse("the tensor " + blk + "probe_weight or probe_share has a number that is not in [0, 1]");
        }
        layers_.push_back(layer);
    }
}

}  // namespace kvsieve
