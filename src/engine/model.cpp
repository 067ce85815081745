// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>

#include "engine/model_impl.h"
#include "graph/arch.h"
#include "kvsieve/error.h"

namespace kvsieve {
namespace {

constexpr const char * kModelName = "kvsieve-tiny-model-f16.gguf";
constexpr const char * kMmprojName = "kvsieve-tiny-mmproj-f16.gguf";
constexpr const char * kProbesName = "kvsieve-tiny-probes-f16.gguf";

ModelInfo info_of(const GgufFile & file, const Weights & weights, const DecoderConfig & config) {
    ModelInfo info;
    info.name = file.get_str("general.name", file.path().stem().string());
    info.architecture = file.get_str("general.architecture");
    info.fingerprint = file.fingerprint();
    info.n_layer = config.n_layer;
    info.n_embd = config.n_embd;
    info.n_head = config.n_head;
    info.n_head_kv = config.n_head_kv;
    info.head_dim = config.head_dim;
    info.n_ff = config.n_ff;
    info.n_vocab = config.n_vocab;
    info.n_ctx_train = config.n_ctx_train;
    info.weight_bytes = weights.bytes();
    return info;
}

}  // namespace

ModelOptions embedded_model() {
    std::vector<std::filesystem::path> places;
    if (const char * dir = std::getenv("KVSIEVE_MODELS")) {
        places.emplace_back(dir);
    }
    std::error_code error;
    const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
    if (!error) {
        places.push_back(program.parent_path().parent_path() / "share" / "kvsieve" / "models");
        // a build folder inside the source tree
        for (auto up = program.parent_path(); up.has_relative_path(); up = up.parent_path()) {
            places.push_back(up / "models");
        }
    }
    std::string looked;
    for (const auto & place : places) {
        ModelOptions options;
        options.model = place / kModelName;
        options.mmproj = place / kMmprojName;
        if (std::filesystem::exists(options.model, error) && std::filesystem::exists(*options.mmproj, error)) {
            if (std::filesystem::exists(place / kProbesName, error)) {
                options.probes = place / kProbesName;
            }
            return options;
        }
        if (looked.size() < 400) {
            looked += (looked.empty() ? "" : ", ") + place.string();
        }
    }
    throw Error(ErrorCode::bad_input, std::string("the embedded model ") + kModelName +
                                          " was not found; name a model with -m, or its folder in KVSIEVE_MODELS "
                                          "(looked in " +
                                          looked + ")");
}

Model::Impl::Impl(const ModelOptions & options)
    : file(options.model),
      weights(file),
      decoder(make_decoder(file, weights, 0)),
      info(info_of(file, weights, decoder->config())),
      text(file) {
    n_threads = options.n_threads > 0 ? options.n_threads
                                      : static_cast<int32_t>(std::max(1U, std::thread::hardware_concurrency()));
    if (text.n_vocab() != info.n_vocab) {
        throw Error(ErrorCode::bad_input, options.model.string() + ": the vocabulary has " +
                                              std::to_string(text.n_vocab()) + " tokens, the embeddings " +
                                              std::to_string(info.n_vocab));
    }
    if (text.uses_mrope()) {
        throw Error(ErrorCode::bad_input, options.model.string() +
                                              ": positions with several components are not supported by architecture " +
                                              info.architecture);
    }
    if (options.repack) {
        packed = std::make_unique<PackedWeights>(file, weights.matrices(), n_threads);
        info.packed_bytes = packed->bytes();
    }
    if (options.mmproj) {
        vision.emplace(*options.mmproj, text, n_threads);
        info.has_vision = true;
        info.vision_fingerprint = vision->fingerprint();
    }
    if (options.probes) {
        probes = std::make_unique<ProbeFile>(*options.probes, decoder->config(), info.fingerprint);
        info.probes_fingerprint = probes->fingerprint();
        info.n_probe = probes->n_probe();
        info.uses_probes = probes->n_rows() >= kMinProbeRows;
    }
}

ProbeSource Model::Impl::probe_source() const {
    std::call_once(factors_made_, [&] { factors_ = std::make_unique<OutputFactors>(*decoder, n_threads); });
    return {info.uses_probes ? probes->layers() : std::span<const LayerProbes>(), factors_.get()};
}

Model::Model(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Model::~Model() = default;

std::shared_ptr<const Model> Model::load(const ModelOptions & options) {
    if (options.n_threads < 0 || options.n_threads > 512) {
        throw Error(ErrorCode::invalid_argument,
                    "threads must be 0 (all cores) to 512, got " + std::to_string(options.n_threads));
    }
    return std::shared_ptr<const Model>(new Model(std::make_unique<Impl>(options)));
}

const ModelInfo & Model::info() const {
    return impl_->info;
}

std::vector<int32_t> Model::tokenize(const std::string & text, bool add_special, bool parse_special) const {
    return impl_->text.tokenize(text, add_special, parse_special);
}

std::string Model::token_text(int32_t token) const {
    return impl_->text.piece(token);
}

bool Model::is_end_of_generation(int32_t token) const {
    return impl_->text.is_eog(token);
}

}  // namespace kvsieve
