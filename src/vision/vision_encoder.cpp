// SPDX-License-Identifier: MIT
#include "vision/vision_encoder.h"

#include <mtmd.h>

#include <algorithm>
#include <chrono>
#include <list>
#include <mutex>
#include <utility>

#include "kvsieve/error.h"
#include "policy/clock.h"
#include "text/upstream.h"
#include "vision/mmproj_check.h"
#include "vision/upstream_mtmd.h"

namespace kvsieve {

struct VisionEncoder::Impl {
    std::mutex mutex;
    mtmd::context_ptr context;
    MmprojInfo info;
    std::string fingerprint;
    int32_t n_embd = 0;
    bool mrope = false;
    size_t memory_bytes = 0;
    std::list<std::shared_ptr<const EncodedImage>> memory;  // most recently used first

    mtmd::input_chunks_ptr tokenize(const Image & image) const;
    std::shared_ptr<const EncodedImage> remembered(const Image & image);
    void remember(std::shared_ptr<const EncodedImage> image);
    ImageSegment segment(const mtmd_input_chunk * chunk, const std::string & name) const;
    void set_grid(EncodedImage & image) const;
};

mtmd::input_chunks_ptr VisionEncoder::Impl::tokenize(const Image & image) const {
    const size_t expected = 3 * static_cast<size_t>(image.width) * static_cast<size_t>(image.height);
    if (image.width < 1 || image.height < 1 || image.rgb.size() != expected) {
        throw Error(ErrorCode::invalid_argument, image.name + " has " + std::to_string(image.rgb.size()) +
                                                     " bytes of pixels, expected " + std::to_string(expected) +
                                                     " for " + std::to_string(image.width) + " x " +
                                                     std::to_string(image.height));
    }
    const mtmd::bitmap_ptr bitmap(
        mtmd_bitmap_init(static_cast<uint32_t>(image.width), static_cast<uint32_t>(image.height), image.rgb.data()));
    mtmd::input_chunks_ptr chunks(mtmd_input_chunks_init());
    mtmd_input_part part{nullptr, bitmap.get()};
    const mtmd_input_part * parts = &part;
    const UpstreamErrors errors;
    if (mtmd_tokenize_from_parts(context.get(), chunks.get(), &parts, 1, false) != 0) {
        throw Error(ErrorCode::bad_input, image.name + " of " + std::to_string(image.width) + " x " +
                                              std::to_string(image.height) +
                                              " pixels cannot be taken by this vision encoder: " + errors.text());
    }
    return chunks;
}

std::shared_ptr<const EncodedImage> VisionEncoder::Impl::remembered(const Image & image) {
    const auto found = std::find_if(memory.begin(), memory.end(), [&](const auto & known) {
        return known->id == image.id && known->name == image.name;
    });
    if (image.id.empty() || found == memory.end()) {
        return nullptr;
    }
    memory.splice(memory.begin(), memory, found);
    return memory.front();
}

void VisionEncoder::Impl::remember(std::shared_ptr<const EncodedImage> image) {
    if (image->id.empty()) {
        return;
    }
    memory.push_front(std::move(image));
    size_t bytes = 0;
    for (auto it = memory.begin(); it != memory.end();) {
        bytes += static_cast<size_t>((*it)->n_visual) * static_cast<size_t>(n_embd) * sizeof(float);
        it = bytes > memory_bytes ? memory.erase(it) : std::next(it);
    }
}

ImageSegment VisionEncoder::Impl::segment(const mtmd_input_chunk * chunk, const std::string & name) const {
    ImageSegment out;
    if (mtmd_input_chunk_get_type(chunk) == MTMD_INPUT_CHUNK_TYPE_TEXT) {
        size_t n = 0;
        const llama_token * tokens = mtmd_input_chunk_get_tokens_text(chunk, &n);
        out.tokens.assign(tokens, tokens + n);
        out.n_position = static_cast<int32_t>(n);
        return out;
    }
    const UpstreamErrors errors;
    if (mtmd_encode_chunk(context.get(), chunk) != 0) {
        throw Error(ErrorCode::runtime, name + " could not be encoded: " + errors.text());
    }
    out.n_visual = static_cast<int32_t>(mtmd_input_chunk_get_n_tokens(chunk));
    out.n_position = mtmd_input_chunk_get_n_pos(chunk);
    const float * embd = mtmd_get_output_embd(context.get());
    out.embd.assign(embd, embd + static_cast<size_t>(out.n_visual) * static_cast<size_t>(n_embd));
    if (mrope) {
        const mtmd_image_tokens * tokens = mtmd_input_chunk_get_tokens_image(chunk);
        for (int32_t i = 0; i < out.n_visual; ++i) {
            const mtmd_decoder_pos at = mtmd_image_tokens_get_decoder_pos(tokens, 0, static_cast<size_t>(i));
            out.mrope.push_back({static_cast<int32_t>(at.t), static_cast<int32_t>(at.y), static_cast<int32_t>(at.x)});
        }
    }
    return out;
}

void VisionEncoder::Impl::set_grid(EncodedImage & image) const {
    image.nx = image.n_visual;
    image.ny = 1;
    const auto is_visual = [](const ImageSegment & segment) { return segment.n_visual > 0; };
    const int64_t n_visual = std::count_if(image.segments.begin(), image.segments.end(), is_visual);
    const auto first = std::find_if(image.segments.begin(), image.segments.end(), is_visual);
    if (n_visual != 1) {
        return;  // cut into tiles
    }
    int32_t nx = info.side;
    int32_t ny = info.side;
    if (mrope) {
        nx = ny = 0;
        for (const auto & [t, y, x] : first->mrope) {
            nx = std::max(nx, x + 1);
            ny = std::max(ny, y + 1);
        }
    }
    if (nx > 0 && nx * ny == image.n_visual) {
        image.nx = nx;
        image.ny = ny;
        image.grid_known = true;
    }
}

VisionEncoder::VisionEncoder(const std::filesystem::path & mmproj, const TextModel & text, int32_t n_threads,
                             size_t memory_bytes)
    : impl_(std::make_unique<Impl>()) {
    ensure_upstream_mtmd();
    {
        const GgufFile file(mmproj);
        impl_->info = check_mmproj(file, text.n_embd());
        impl_->fingerprint = file.fingerprint();
    }
    impl_->memory_bytes = memory_bytes;
    impl_->n_embd = text.n_embd();
    impl_->mrope = text.uses_mrope();

    mtmd_context_params params = mtmd_context_params_default();
    params.use_gpu = false;
    params.print_timings = false;
    params.warmup = false;
    params.n_threads = std::max(1, n_threads);
    // What llama-mtmd-cli's warm-up run finds out on the CPU; without that run "auto" would mean off.
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    const UpstreamErrors errors;
    impl_->context.reset(mtmd_init_from_file(mmproj.c_str(), text.handle(), params));
    if (!impl_->context) {
        throw Error(ErrorCode::bad_input, mmproj.string() + " cannot be read by libmtmd: " + errors.text());
    }
    if (!mtmd_support_vision(impl_->context.get())) {
        throw Error(ErrorCode::bad_input, mmproj.string() + " has no vision encoder");
    }
}

VisionEncoder::~VisionEncoder() = default;
VisionEncoder::VisionEncoder(VisionEncoder &&) noexcept = default;
VisionEncoder & VisionEncoder::operator=(VisionEncoder &&) noexcept = default;

const std::string & VisionEncoder::projector() const {
    return impl_->info.projector;
}

int32_t VisionEncoder::n_embd() const {
    return impl_->n_embd;
}

std::string VisionEncoder::fingerprint() const {
    return impl_->fingerprint;
}

int32_t VisionEncoder::count_tokens(const Image & image) const {
    const std::scoped_lock lock(impl_->mutex);
    const mtmd::input_chunks_ptr chunks = impl_->tokenize(image);
    size_t n = 0;
    for (size_t i = 0; i < mtmd_input_chunks_size(chunks.get()); ++i) {
        n += mtmd_input_chunk_get_n_tokens(mtmd_input_chunks_get(chunks.get(), i));
    }
    return static_cast<int32_t>(n);
}

std::shared_ptr<const EncodedImage> VisionEncoder::encode(const Image & image) const {
    const std::scoped_lock lock(impl_->mutex);
    if (auto known = impl_->remembered(image)) {
        return known;
    }
    const auto start = std::chrono::steady_clock::now();
    const mtmd::input_chunks_ptr chunks = impl_->tokenize(image);
    auto out = std::make_shared<EncodedImage>();
    out->name = image.name;
    out->id = image.id;
    out->width = image.width;
    out->height = image.height;
    out->n_embd = impl_->n_embd;
    for (size_t i = 0; i < mtmd_input_chunks_size(chunks.get()); ++i) {
        const mtmd_input_chunk * chunk = mtmd_input_chunks_get(chunks.get(), i);
        out->segments.push_back(impl_->segment(chunk, image.name));
        out->n_visual += out->segments.back().n_visual;
        if (out->segments.back().n_visual > 0) {
            out->non_causal = out->non_causal || mtmd_decode_use_non_causal(impl_->context.get(), chunk);
        }
    }
    if (out->n_visual == 0) {
        throw Error(ErrorCode::bad_input, image.name + " gives no visual tokens");
    }
    impl_->set_grid(*out);
    out->encode_ms = ms_since(start);
    impl_->remember(out);
    return out;
}

}  // namespace kvsieve
