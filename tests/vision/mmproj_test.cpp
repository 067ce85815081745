// SPDX-License-Identifier: MIT
// Wrong and damaged mmproj files.
#include <gtest/gtest.h>

#include <thread>

#include "support/expect_error.h"
#include "support/gguf_writer.h"
#include "vision/image_files.h"
#include "vision/small_models.h"
#include "vision/vision_encoder.h"

namespace kvsieve {
namespace {

using namespace test;

const std::filesystem::path kModel = std::filesystem::path(KVSIEVE_MODELS_DIR) / "kvsieve-tiny-model-f16.gguf";
const std::filesystem::path kMmproj = std::filesystem::path(KVSIEVE_MODELS_DIR) / "kvsieve-tiny-mmproj-f16.gguf";

constexpr int32_t kWidth = kSmallWidth;

/// Small pairs of language model and mmproj: of LLaVA's form and of Qwen2-VL's.
class SmallPair : public testing::Test {
  protected:
    static void SetUpTestSuite() {
        dir_ = new TempDir;
        write_small_model(*dir_ / "model.gguf");
        write_mrope_model(*dir_ / "qwen.gguf");
        text_ = new TextModel{GgufFile(*dir_ / "model.gguf")};
        qwen_text_ = new TextModel{GgufFile(*dir_ / "qwen.gguf")};
        write_small_mmproj(kMmproj, *dir_ / "mmproj.gguf");
        write_small_qwen_mmproj(*dir_ / "mmproj.gguf", *dir_ / "qwen-mmproj.gguf");
    }
    static void TearDownTestSuite() {
        delete qwen_text_;
        delete text_;
        delete dir_;
    }

    static Image made_image(int32_t width, int32_t height) {
        Image image;
        image.name = std::to_string(width) + " x " + std::to_string(height);
        image.width = width;
        image.height = height;
        image.rgb = make_pixels(width, height);
        return image;
    }
    static Image small_image() { return made_image(30, 30); }

    // Sizes at which resizing could come to nothing. None may end the process.
    static void try_every_shape(const VisionEncoder & encoder) {
        const std::pair<int32_t, int32_t> sizes[] = {{1, 1},     {2, 1},     {1, 2},   {1, 3000}, {3000, 1},
                                                     {16384, 1}, {1, 16384}, {13, 17}, {2000, 10}};
        for (const auto & [width, height] : sizes) {
            const Image image = made_image(width, height);
            EXPECT_NE(outcome_of([&] { (void)encoder.encode(image); }), Outcome::crash) << image.name;
        }
    }

    static std::filesystem::path changed(const std::function<void(GgufCopy &)> & change,
                                         const std::string & file = "mmproj.gguf") {
        GgufCopy copy(*dir_ / file);
        change(copy);
        copy.write(*dir_ / "x.gguf");
        return *dir_ / "x.gguf";
    }

    static void expect_refused(const std::string & part, const std::function<void(GgufCopy &)> & change) {
        const auto path = changed(change);
        expect_error(ErrorCode::bad_input, part, [&] { VisionEncoder encoder(path, *text_, 1); });
    }

    /// One of the two pairs, for changes that are refused or survive.
    struct Pair {
        std::string file;
        const TextModel * text;

        void expect_survives(const std::string & what, const std::function<void(GgufCopy &)> & change) const {
            const auto path = changed(change, file);
            EXPECT_NE(outcome_of([&] {
                          const VisionEncoder encoder(path, *text, 1);
                          (void)encoder.encode(small_image());
                      }),
                      Outcome::crash)
                << file << ": " << what;
        }
    };
    static std::vector<Pair> pairs() { return {{"mmproj.gguf", text_}, {"qwen-mmproj.gguf", qwen_text_}}; }

    static inline TempDir * dir_ = nullptr;
    static inline TextModel * text_ = nullptr;
    static inline TextModel * qwen_text_ = nullptr;
};

TEST_F(SmallPair, Works) {
    const VisionEncoder encoder(*dir_ / "mmproj.gguf", *text_, 1);
    const auto image = encoder.encode(small_image());
    EXPECT_EQ(image->n_visual, 4);
    EXPECT_EQ(image->nx, 2);
    EXPECT_TRUE(image->grid_known);
}

TEST_F(SmallPair, TakesEveryShapeOfImage) {
    const VisionEncoder encoder(*dir_ / "mmproj.gguf", *text_, 1);
    try_every_shape(encoder);
    for (const auto & [width, height] : std::vector<std::pair<int32_t, int32_t>>{{1, 1}, {1, 3000}, {3000, 1}}) {
        EXPECT_EQ(encoder.encode(made_image(width, height))->n_visual, 4);
    }
}

// LLaVA 1.6: an overview and tiles, each a run of visual tokens.
TEST_F(SmallPair, ImagesCutIntoTiles) {
    const int32_t sizes[] = {28, 56, 56, 28, 56, 56};
    const VisionEncoder encoder(changed([&](GgufCopy & copy) {
                                    gguf_set_arr_data(copy.meta(), "clip.vision.image_grid_pinpoints", GGUF_TYPE_INT32,
                                                      sizes, 6);
                                }),
                                *text_, 1);
    const auto image = encoder.encode(made_image(100, 100));
    EXPECT_EQ(image->n_visual, 5 * 4);
    EXPECT_EQ(image->segments.size(), 5U);
    EXPECT_FALSE(image->grid_known);
    EXPECT_EQ(image->nx, image->n_visual);
    EXPECT_EQ(image->ny, 1);
    const std::vector<std::shared_ptr<const EncodedImage>> images = {image};
    const Prompt prompt = build_prompt(*text_, std::string(kImageMarker), images, false);
    EXPECT_EQ(prompt.runs.size(), 5U);
    EXPECT_EQ(prompt.images[0].n_tokens, 20);
    try_every_shape(encoder);
}

TEST_F(SmallPair, ThreadsShareAnEncoder) {
    const VisionEncoder encoder(*dir_ / "qwen-mmproj.gguf", *qwen_text_, 1);
    std::vector<std::shared_ptr<const EncodedImage>> results(4);
    std::vector<std::thread> threads;
    for (size_t i = 0; i < results.size(); ++i) {
        threads.emplace_back(
            [&, i] { results[i] = encoder.encode(made_image(28 * (4 + static_cast<int32_t>(i) % 2), 84)); });
    }
    for (std::thread & thread : threads) {
        thread.join();
    }
    for (size_t i = 0; i < results.size(); ++i) {
        EXPECT_EQ(results[i]->nx, 4 + static_cast<int32_t>(i) % 2);
        EXPECT_EQ(results[i]->segments[1].embd, results[i % 2]->segments[1].embd);
    }
}

TEST_F(SmallPair, WrongFilesAreRefusedInASentence) {
    expect_error(ErrorCode::bad_input, "is a model of architecture 'llama', expected a vision encoder (mmproj",
                 [&] { VisionEncoder encoder(kModel, *text_, 1); });
    expect_error(ErrorCode::bad_input, "cannot be opened",
                 [&] { VisionEncoder encoder(*dir_ / "no.gguf", *text_, 1); });
    const TextModel other{GgufFile(kModel)};
    ASSERT_NE(other.n_embd(), kWidth);
    expect_error(ErrorCode::bad_input,
                 "makes embeddings of width " + std::to_string(kWidth) + " (mm.2.weight), but the language model has " +
                     std::to_string(other.n_embd()),
                 [&] { VisionEncoder encoder(*dir_ / "mmproj.gguf", other, 1); });
}

TEST_F(SmallPair, DamageIsRefusedInASentence) {
    const auto set = [](const char * key, uint32_t value) {
        return [key, value](GgufCopy & copy) { gguf_set_val_u32(copy.meta(), key, value); };
    };
    expect_refused("has no vision encoder",
                   [](GgufCopy & copy) { gguf_remove_key(copy.meta(), "clip.has_vision_encoder"); });
    expect_refused("has no vision encoder",
                   [](GgufCopy & copy) { gguf_set_val_bool(copy.meta(), "clip.has_vision_encoder", false); });
    expect_refused("'clip.has_vision_encoder' is u32, expected a bool",
                   [](GgufCopy & copy) { gguf_set_val_u32(copy.meta(), "clip.has_vision_encoder", 1); });
    expect_refused("has the unknown projector 'wonder'",
                   [](GgufCopy & copy) { gguf_set_val_str(copy.meta(), "clip.projector_type", "wonder"); });
    expect_refused("depend on the text before them",
                   [](GgufCopy & copy) { gguf_set_val_str(copy.meta(), "clip.projector_type", "hunyuanvl"); });
    expect_refused("'clip.vision.projector_type' is missing",
                   [](GgufCopy & copy) { gguf_remove_key(copy.meta(), "clip.projector_type"); });
    expect_refused("has the key 'clip.vision.image_size' as f32, expected u32",
                   [](GgufCopy & copy) { gguf_set_val_f32(copy.meta(), "clip.vision.image_size", 28.0F); });
    expect_refused("'clip.vision.block_count' is missing",
                   [](GgufCopy & copy) { gguf_remove_key(copy.meta(), "clip.vision.block_count"); });
    expect_refused("has a width of 64, expected a multiple of its 3 heads", set("clip.vision.attention.head_count", 3));
    expect_refused("has 0 in 'clip.vision.attention.head_count'", set("clip.vision.attention.head_count", 0));
    expect_refused("has 0 in 'clip.vision.patch_size'", set("clip.vision.patch_size", 0));
    expect_refused("has images of 28 and patches of 29 pixels", set("clip.vision.patch_size", 29));
    expect_refused("has position embeddings of 64 x 4, expected 64 x 9", set("clip.vision.image_size", 42));
    expect_refused("has no tensor 'v.blk.1.attn_q.weight'", set("clip.vision.block_count", 2));
    expect_refused("has no 'clip.vision.image_mean' of three floats",
                   [](GgufCopy & copy) { gguf_remove_key(copy.meta(), "clip.vision.image_mean"); });
    expect_refused("has no tensor 'mm.2.weight', which the projector 'mlp' needs",
                   [](GgufCopy & copy) { copy.drop("mm.2.weight"); });
    expect_refused("has the tensor 'v.blk.0.attn_k.weight' with the shape 64 x 32, expected 64 x 64",
                   [](GgufCopy & copy) {
                       copy.replace("v.blk.0.attn_k.weight", GGML_TYPE_F16, {64, 32, 1, 1});
                   });
    expect_refused("has the tensor 'mm.0.bias' as f16, expected f32", [](GgufCopy & copy) {
        copy.replace("mm.0.bias", GGML_TYPE_F16, {80, 1, 1, 1});
    });
    expect_refused("has the tensor 'v.patch_embd.weight' as bf16, expected f32 or f16", [](GgufCopy & copy) {
        copy.replace("v.patch_embd.weight", GGML_TYPE_BF16, {14, 14, 3, 64});
    });
    expect_refused("has the tensor 'mm.0.weight' as i32, expected weights", [](GgufCopy & copy) {
        copy.replace("mm.0.weight", GGML_TYPE_I32, {64, 80, 1, 1});
    });
}

// Qwen2-VL: the grid follows the image's form, and the model's marks stand around the image.
TEST_F(SmallPair, ImagesWithMropePositions) {
    const VisionEncoder encoder(*dir_ / "qwen-mmproj.gguf", *qwen_text_, 1);
    const auto image = encoder.encode(made_image(28 * 8, 28 * 3));
    EXPECT_EQ(image->nx, 8);
    EXPECT_EQ(image->ny, 3);
    EXPECT_TRUE(image->grid_known);
    EXPECT_EQ(image->n_visual, 24);
    ASSERT_EQ(image->segments.size(), 3U);
    EXPECT_EQ(qwen_text_->detokenize(image->segments.front().tokens, true), "<|vision_start|>");
    EXPECT_EQ(image->segments[1].n_position, 8);
    EXPECT_EQ(image->segments[1].mrope.at(9), (std::array<int32_t, 3>{0, 1, 1}));
    const std::vector<std::shared_ptr<const EncodedImage>> images = {image};
    const Prompt prompt = build_prompt(*qwen_text_, std::string(kImageMarker), images, false);
    EXPECT_EQ(prompt.n_pos_per_token, 4);
    EXPECT_EQ(prompt.next_position, prompt.n_tokens() - 24 + 8);
    try_every_shape(encoder);
}

TEST_F(SmallPair, DamagedQwenFilesAreRefusedInASentence) {
    const auto refused = [](const std::string & part, const std::function<void(GgufCopy &)> & change) {
        const auto path = changed(change, "qwen-mmproj.gguf");
        expect_error(ErrorCode::bad_input, part, [&] { VisionEncoder encoder(path, *qwen_text_, 1); });
    };
    refused("has 3 in 'clip.vision.spatial_merge_size', expected 2",
            [](GgufCopy & copy) { gguf_set_val_u32(copy.meta(), "clip.vision.spatial_merge_size", 3); });
    refused("has no tensor 'v.patch_embd.weight.1'", [](GgufCopy & copy) { copy.drop("v.patch_embd.weight.1"); });
    refused("has no tensor 'v.blk.0.attn_k.bias'", [](GgufCopy & copy) { copy.drop("v.blk.0.attn_k.bias"); });
    refused("does not have", [](GgufCopy & copy) { copy.add("v.class_embd", GGML_TYPE_F32, {64, 1, 1, 1}); });
    refused("'mm.0.weight' with the shape 64 x 80, expected 256 x 80", [](GgufCopy & copy) {
        copy.replace("mm.0.weight", GGML_TYPE_F16, {64, 80, 1, 1});
    });
}

TEST_F(SmallPair, NoChangedKeyEndsTheProcess) {
    for (const Pair & pair : pairs()) {
        GgufCopy keys(*dir_ / pair.file);
        for (int64_t i = 0; i < gguf_get_n_kv(keys.meta()); ++i) {
            const std::string key = gguf_get_key(keys.meta(), i);
            const auto set = [&](const std::string & what, const auto & change) {
                pair.expect_survives(key + what, [&](GgufCopy & copy) { change(copy.meta(), key.c_str()); });
            };
            set(" removed", [](gguf_context * meta, const char * name) { gguf_remove_key(meta, name); });
            set(" as a text", [](gguf_context * meta, const char * name) { gguf_set_val_str(meta, name, "x"); });
            set(" as -1", [](gguf_context * meta, const char * name) { gguf_set_val_i32(meta, name, -1); });
            for (const uint32_t value : {0U, 1U, 5U, 100000U, 0xFFFFFFFFU}) {
                set(" = " + std::to_string(value),
                    [value](gguf_context * meta, const char * name) { gguf_set_val_u32(meta, name, value); });
            }
        }
        for (const char * key :
             {"clip.has_audio_encoder", "clip.has_gen_audio_encoder", "clip.use_silu", "clip.use_gelu"}) {
            pair.expect_survives(key, [&](GgufCopy & copy) { gguf_set_val_bool(copy.meta(), key, true); });
        }
        for (const char * key : {"clip.vision.spatial_merge_size", "clip.vision.n_wa_pattern",
                                 "clip.vision.attention.head_dim", "clip.vision.image_min_pixels"}) {
            for (const uint32_t value : {0U, 1U, 7U, 32U, 0x7FFFFFFFU}) {
                pair.expect_survives(key, [&](GgufCopy & copy) { gguf_set_val_u32(copy.meta(), key, value); });
            }
        }
        for (const int32_t layer : {-1, 0, 1, 2, 1000000}) {
            pair.expect_survives("feature_layer", [&](GgufCopy & copy) {
                gguf_set_arr_data(copy.meta(), "clip.vision.feature_layer", GGUF_TYPE_INT32, &layer, 1);
            });
        }
        const int32_t points[] = {28, 56, 0, -3};
        for (const size_t n : {size_t{1}, size_t{2}, size_t{4}}) {
            pair.expect_survives("image_grid_pinpoints", [&](GgufCopy & copy) {
                gguf_set_arr_data(copy.meta(), "clip.vision.image_grid_pinpoints", GGUF_TYPE_INT32, points, n);
            });
        }
    }
}

TEST_F(SmallPair, NoChangedTensorEndsTheProcess) {
    for (const Pair & pair : pairs()) {
        const GgufFile good(*dir_ / pair.file);
        for (const GgufTensor & tensor : good.tensors()) {
            const auto replace = [&](const std::string & what, ggml_type type, const std::array<int64_t, 4> & ne) {
                pair.expect_survives(tensor.name + what, [&](GgufCopy & copy) { copy.replace(tensor.name, type, ne); });
            };
            pair.expect_survives(tensor.name + " dropped", [&](GgufCopy & copy) { copy.drop(tensor.name); });
            for (const ggml_type type : {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_I32}) {
                replace(std::string(" as ") + ggml_type_name(type), type, tensor.ne);
            }
            std::array<int64_t, 4> longer = tensor.ne;
            std::array<int64_t, 4> higher = tensor.ne;
            longer[0] *= 2;
            higher[1] += 1;
            replace(" longer", tensor.type, longer);
            replace(" higher", tensor.type, higher);
        }
    }
}

}  // namespace
}  // namespace kvsieve
