// SPDX-License-Identifier: MIT
#include "vision/image.h"

#include <gtest/gtest.h>
#include <mtmd-helper.h>

#include <random>

#include "support/expect_error.h"
#include "support/gguf_writer.h"
#include "vision/image_files.h"

#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include <stb/stb_image_write.h>
#pragma GCC diagnostic pop

namespace kvsieve {
namespace test {
namespace {

void append(void * out, void * data, int n) {
    static_cast<std::string *>(out)->append(static_cast<const char *>(data), static_cast<size_t>(n));
}

}  // namespace

std::string make_jpeg(int32_t width, int32_t height, const std::vector<uint8_t> & rgb) {
    std::string out;
    stbi_write_jpg_to_func(append, &out, width, height, 3, rgb.data(), 90);
    return out;
}

std::string make_bmp(int32_t width, int32_t height, const std::vector<uint8_t> & rgb) {
    std::string out;
    stbi_write_bmp_to_func(append, &out, width, height, 3, rgb.data());
    return out;
}

}  // namespace test

namespace {

using namespace test;

Image decode(const std::string & bytes) {
    return decode_image(as_bytes(bytes), "it.png");
}

void expect_refused(const std::string & bytes, const std::string & part, ErrorCode code = ErrorCode::bad_input) {
    expect_error(code, "it.png " + part, [&] { (void)decode(bytes); });
}

const std::filesystem::path kExamples = std::filesystem::path(KVSIEVE_MODELS_DIR) / "examples";

TEST(Image, ReadsEveryKindOfPng) {
    const std::string rgb = as_text(make_pixels(7, 5));
    const Image color = decode(make_png(7, 5, 8, 2, rgb));
    EXPECT_EQ(color.width, 7);
    EXPECT_EQ(color.height, 5);
    EXPECT_EQ(color.name, "it.png");
    EXPECT_EQ(as_text(color.rgb), rgb);

    const std::vector<uint8_t> grey = decode(make_png(2, 1, 8, 0, "\x10\xF0")).rgb;
    EXPECT_EQ(grey, (std::vector<uint8_t>{0x10, 0x10, 0x10, 0xF0, 0xF0, 0xF0}));
    // Alpha is dropped, as llama.cpp does.
    const std::vector<uint8_t> alpha = decode(make_png(1, 1, 8, 6, std::string("\x0A\x14\x1E\x00", 4))).rgb;
    EXPECT_EQ(alpha, (std::vector<uint8_t>{10, 20, 30}));
    const std::vector<uint8_t> deep = decode(make_png(1, 1, 16, 2, "\x11\x99\x22\x99\x33\x99")).rgb;
    EXPECT_EQ(deep, (std::vector<uint8_t>{0x11, 0x22, 0x33}));
    EXPECT_EQ(decode(make_png(1, 1, 8, 2, "abc")).rgb.size(), 3U);
}

TEST(Image, ReadsOtherFormats) {
    const std::vector<uint8_t> rgb = make_pixels(20, 11);
    EXPECT_EQ(decode(make_bmp(20, 11, rgb)).rgb, rgb);
    EXPECT_EQ(decode("P6 20 11 255\n" + as_text(rgb)).rgb, rgb);
    const Image jpeg = decode(make_jpeg(20, 11, rgb));
    EXPECT_EQ(jpeg.width, 20);
    EXPECT_EQ(jpeg.rgb.size(), rgb.size());
}

TEST(Image, EqualsLlamaCppsReading) {
    size_t n = 0;
    for (const auto & entry : std::filesystem::directory_iterator(kExamples)) {
        if (entry.path().extension() != ".png") {
            continue;
        }
        const Image image = load_image(entry.path());
        const mtmd::bitmap reference(
            mtmd_helper_bitmap_init_from_file(nullptr, entry.path().c_str(), false, mtmd_helper_init_opt_default())
                .bitmap);
        ASSERT_EQ(image.width, static_cast<int32_t>(reference.nx()));
        ASSERT_EQ(image.height, static_cast<int32_t>(reference.ny()));
        EXPECT_TRUE(std::equal(image.rgb.begin(), image.rgb.end(), reference.data()));
        EXPECT_EQ(image.id, reference.id());
        EXPECT_EQ(image.id.size(), 64U);
        EXPECT_EQ(image.name, entry.path().string());
        ++n;
    }
    EXPECT_GT(n, 3U);
}

TEST(Image, RefusesWhatIsNotAnImage) {
    expect_refused("", "is empty, expected an image");
    expect_refused("Once upon a time there was a text file, long enough for a header.",
                   "is not an image that can be read");
    expect_refused(std::string(100, '\0'), "is not an image that can be read");
    expect_refused("RIFF....WAVEfmt ", "is not an image");  // sound, which libmtmd would take
    expect_refused("ID3\x03 and so on", "is not an image");
    const TempDir dir;
    expect_error(ErrorCode::bad_input, "does not exist", [&] { (void)load_image(dir / "missing.png"); });
    std::filesystem::create_directory(dir / "folder");
    expect_error(ErrorCode::bad_input, "is not a regular file", [&] { (void)load_image(dir / "folder"); });
    write_file(dir / "empty.png", "");
    expect_error(ErrorCode::bad_input, "is empty", [&] { (void)load_image(dir / "empty.png"); });
}

TEST(Image, RefusesSizesBeforeDecoding) {
    expect_refused(make_png(30000, 30000, 8, 2, ""),
                   "has 30000 x 30000 pixels, expected at most 16384 on a side and 64000000", ErrorCode::too_large);
    expect_refused(make_png(16385, 1, 8, 2, ""), "has 16385 x 1 pixels", ErrorCode::too_large);
    expect_refused(make_png(8001, 8000, 8, 2, ""), "has 8001 x 8000 pixels", ErrorCode::too_large);
    expect_refused(make_png(0x7FFFFFFF, 0x7FFFFFFF, 8, 6, ""), "has 2147483647 x 2147483647 pixels",
                   ErrorCode::too_large);
    expect_refused(make_png(0x80000000, 5, 8, 2, ""), "is damaged: its PNG header cannot be read");
    expect_refused(make_png(0, 5, 8, 2, ""), "is damaged: its PNG header cannot be read");
}

TEST(Image, RefusesCutFiles) {
    const std::vector<uint8_t> rgb = make_pixels(64, 48);
    const std::string png = make_png(64, 48, 8, 2, as_text(rgb));
    for (size_t n = 1; n < png.size() - 16; n += n < 64 ? 1 : 97) {
        EXPECT_THROW((void)decode(png.substr(0, n)), Error) << n;
    }
    const std::string jpeg = make_jpeg(64, 48, rgb);
    for (size_t n = 1; n < jpeg.size() - 1; n += 7) {
        EXPECT_THROW((void)decode(jpeg.substr(0, n)), Error) << n;
    }
    // The thumbnail inside a photo ends with an end marker too.
    const std::string inner = make_jpeg(8, 8, make_pixels(8, 8));
    const std::string photo = jpeg.substr(0, 2) + std::string("\xFF\xE1", 2) +
                              static_cast<char>((inner.size() + 2) >> 8U) + static_cast<char>(inner.size() + 2) +
                              inner + jpeg.substr(2);
    EXPECT_EQ(decode(photo).rgb, decode(jpeg).rgb);
    expect_refused(photo.substr(0, photo.size() - 500), "is cut: the end marker of the JPEG is missing");
    const std::string bmp = make_bmp(64, 48, rgb);
    for (size_t n = 1; n < bmp.size() - 1; n += n < 64 ? 1 : 97) {
        EXPECT_THROW((void)decode(bmp.substr(0, n)), Error) << n;
    }
}

// Damaged pixel data may give other pixels, but never end the process.
TEST(Image, DamagedFilesNeverEndTheProcess) {
    const std::vector<uint8_t> rgb = make_pixels(40, 30);
    const std::vector<std::string> files = {make_png(40, 30, 8, 2, as_text(rgb)), make_jpeg(40, 30, rgb),
                                            make_bmp(40, 30, rgb),
                                            read_file(kExamples / "shapes_1.png").substr(0, 4000)};
    EXPECT_NE(
        outcome_of([&] {
            std::mt19937_64 random(3);
            for (int i = 0; i < 3000; ++i) {
                std::string bytes = files[random() % files.size()];
                for (uint64_t n = 1 + random() % 4; n > 0; --n) {
                    const size_t range = random() % 2 == 0 ? 64 : bytes.size();
                    bytes[random() % std::min(range, bytes.size())] = static_cast<char>(random());
                }
                try {
                    const Image image = decode(bytes);
                    if (image.rgb.size() != 3 * static_cast<size_t>(image.width) * static_cast<size_t>(image.height)) {
                        std::abort();
                    }
                } catch (const Error &) {
                    continue;
                }
            }
        }),
        Outcome::crash);
}

}  // namespace
}  // namespace kvsieve
