// SPDX-License-Identifier: MIT
#include "vision/vision_encoder.h"

#include <gtest/gtest.h>
#include <mtmd-helper.h>
#include <mtmd.h>

#include <cstring>

#include "support/expect_error.h"
#include "support/gguf_writer.h"

namespace kvsieve {
namespace {

using namespace test;

const std::filesystem::path kModels = KVSIEVE_MODELS_DIR;
const std::filesystem::path kModel = kModels / "kvsieve-tiny-model-f16.gguf";
const std::filesystem::path kMmproj = kModels / "kvsieve-tiny-mmproj-f16.gguf";
const std::string kMark{kImageMarker};

const TextModel & model() {
    static const TextModel text{GgufFile(kModel)};
    return text;
}

VisionEncoder & encoder() {
    static VisionEncoder it(kMmproj, model(), 2);
    return it;
}

Image example(const std::string & name) {
    return load_image(kModels / "examples" / name);
}

std::shared_ptr<const EncodedImage> shapes() {
    static const auto image = encoder().encode(example("shapes_1.png"));
    return image;
}

/// libmtmd as llama-mtmd-cli uses it, warm-up included.
struct Plain {
    Plain() {
        mtmd_helper_log_set([](ggml_log_level, const char *, void *) {}, nullptr);
        mtmd_context_params params = mtmd_context_params_default();
        params.use_gpu = false;
        params.print_timings = false;
        params.n_threads = 2;
        context.reset(mtmd_init_from_file(kMmproj.c_str(), model().handle(), params));
    }
    mtmd::context_ptr context;
    mtmd::input_chunks_ptr chunks{mtmd_input_chunks_init()};

    void tokenize(const std::string & text, const std::vector<std::string> & names) {
        mtmd::bitmaps bitmaps;
        for (const std::string & name : names) {
            bitmaps.entries.emplace_back(mtmd_helper_bitmap_init_from_file(context.get(),
                                                                           (kModels / "examples" / name).c_str(), false,
                                                                           mtmd_helper_init_opt_default())
                                             .bitmap);
        }
        const auto pointers = bitmaps.c_ptr();
        const mtmd_input_text input = {text.data(), text.size(), true, true};
        ASSERT_EQ(mtmd_tokenize(context.get(), chunks.get(), &input, const_cast<const mtmd_bitmap **>(pointers.data()),
                                pointers.size()),
                  0);
    }
};

TEST(VisionEncoder, EqualsPlainLibmtmdBitForBit) {
    Plain plain;
    ASSERT_TRUE(plain.context);
    plain.tokenize("<|im_start|>user\n<__media__>What is <__media__> at the left?<|im_end|>\n<|im_start|>assistant\n",
                   {"shapes_1.png", "chart_1.png"});
    const std::vector<std::shared_ptr<const EncodedImage>> images = {shapes(),
                                                                     encoder().encode(example("chart_1.png"))};
    const Prompt prompt = build_prompt(
        model(), "<|im_start|>user\n" + kMark + "What is " + kMark + " at the left?<|im_end|>\n<|im_start|>assistant\n",
        images, true);

    size_t t = 0;
    size_t run = 0;
    for (size_t i = 0; i < mtmd_input_chunks_size(plain.chunks.get()); ++i) {
        const mtmd_input_chunk * chunk = mtmd_input_chunks_get(plain.chunks.get(), i);
        size_t n = 0;
        if (mtmd_input_chunk_get_type(chunk) == MTMD_INPUT_CHUNK_TYPE_TEXT) {
            const llama_token * tokens = mtmd_input_chunk_get_tokens_text(chunk, &n);
            for (size_t k = 0; k < n; ++k) {
                ASSERT_LT(t, prompt.tokens.size());
                EXPECT_EQ(prompt.tokens[t++], tokens[k]);
            }
            continue;
        }
        n = mtmd_input_chunk_get_n_tokens(chunk);
        ASSERT_LT(run, prompt.runs.size());
        EXPECT_EQ(static_cast<size_t>(prompt.runs[run].first_token), t);
        ASSERT_EQ(static_cast<size_t>(prompt.runs[run].n_tokens), n);
        ASSERT_EQ(mtmd_encode_chunk(plain.context.get(), chunk), 0);
        const size_t n_float = n * static_cast<size_t>(model().n_embd());
        EXPECT_EQ(
            std::memcmp(mtmd_get_output_embd(plain.context.get()), prompt.runs[run].embd, n_float * sizeof(float)), 0);
        ++run;
        t += n;
    }
    EXPECT_EQ(t, prompt.tokens.size());
    EXPECT_EQ(run, 2U);
}

TEST(VisionEncoder, DescribesTheImage) {
    const GgufFile file(kMmproj);
    const int32_t side =
        static_cast<int32_t>(file.get_u32("clip.vision.image_size") / file.get_u32("clip.vision.patch_size"));
    const Image image = example("shapes_1.png");
    const auto encoded = shapes();
    EXPECT_EQ(encoded->name, image.name);
    EXPECT_EQ(encoded->id, image.id);
    EXPECT_EQ(encoded->width, image.width);
    EXPECT_EQ(encoded->n_embd, model().n_embd());
    EXPECT_EQ(encoded->nx, side);
    EXPECT_EQ(encoded->ny, side);
    EXPECT_TRUE(encoded->grid_known);
    EXPECT_EQ(encoded->n_visual, side * side);
    EXPECT_FALSE(encoded->non_causal);
    EXPECT_GT(encoded->encode_ms, 0.0);
    EXPECT_EQ(encoder().projector(), "mlp");
    EXPECT_EQ(encoder().n_embd(), model().n_embd());
    EXPECT_EQ(encoder().fingerprint(), file.fingerprint());
}

TEST(VisionEncoder, AnEncodedImageServesManyPrompts) {
    const std::vector<std::shared_ptr<const EncodedImage>> images = {shapes()};
    const Prompt first = build_prompt(model(), kMark + "one", images, true);
    const Prompt second = build_prompt(model(), kMark + "two", images, true);
    EXPECT_EQ(first.runs[0].embd, second.runs[0].embd) << "no copy is made";
    EXPECT_EQ(images[0].use_count(), 5) << "the list, two prompts, shapes() and the encoder's memory";
}

TEST(VisionEncoder, RemembersImagesByFileAndName) {
    const Image image = example("table_1.png");
    const auto first = encoder().encode(image);
    EXPECT_EQ(encoder().encode(image), first);
    EXPECT_EQ(encoder().encode(example("table_1.png")), first) << "the same file";
    EXPECT_NE(encoder().encode(example("page_1.png")), first);
    Image renamed = image;
    renamed.name = "another";
    EXPECT_EQ(encoder().encode(renamed)->name, "another");
    Image unknown = image;
    unknown.id.clear();
    EXPECT_NE(encoder().encode(unknown), encoder().encode(unknown)) << "nothing to know it by";
}

TEST(VisionEncoder, MemoryOfImagesIsBounded) {
    const size_t bytes = 576 * 256 * sizeof(float);
    const VisionEncoder own(kMmproj, model(), 2, 2 * bytes);
    Image image = example("table_1.png");
    const std::weak_ptr<const EncodedImage> first = own.encode(image);
    image.id = "second";
    const std::weak_ptr<const EncodedImage> second = own.encode(image);
    image.id = first.lock()->id;
    (void)own.encode(image);  // now the second one is the older
    image.id = "third";
    (void)own.encode(image);
    EXPECT_FALSE(first.expired());
    EXPECT_TRUE(second.expired());
}

TEST(VisionEncoder, CountsTokensWithoutEncoding) {
    EXPECT_EQ(encoder().count_tokens(example("shapes_1.png")), 576);
}

TEST(VisionEncoder, RefusesPixelsThatDoNotFitTheSize) {
    Image image;
    image.width = image.height = 4;
    image.rgb.resize(47);
    expect_error(ErrorCode::invalid_argument, "has 47 bytes of pixels, expected 48",
                 [&] { (void)encoder().encode(image); });
}

}  // namespace
}  // namespace kvsieve
