// SPDX-License-Identifier: MIT
// Damaged files: whatever is taken can be read without leaving the file, and ggml takes it too.
#include <gtest/gtest.h>

#include <chrono>
#include <random>

#include "gguf/gguf_file.h"
#include "kvsieve/error.h"
#include "support/gguf_writer.h"

namespace kvsieve {
namespace {

// Every getter on every key of the good file; an Error is a good answer.
size_t read_everything(const GgufFile & file) {
    size_t n = 0;
    for (const char * key : {"a.u8", "a.i8", "a.u16", "a.i16", "a.u32", "a.i32", "a.u64", "a.i64", "a.f32", "a.f64",
                             "a.bool", "a.str", "a.numbers", "a.texts"}) {
        const auto attempt = [&n](const auto & get) {
            try {
                (void)get();
                ++n;
            } catch (const Error & error) {
                EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(ErrorCode::bad_input)) << error.what();
            }
        };
        attempt([&] { return file.get_u32(key); });
        attempt([&] { return file.get_f32(key); });
        attempt([&] { return file.get_bool(key); });
        attempt([&] { return file.get_str(key); });
        attempt([&] { return file.array_size(key); });
        attempt([&] { return file.get_i32_array(key); });
        attempt([&] { return file.get_f32_array(key); });
        attempt([&] { return file.get_str_array(key); });
        attempt([&] { return file.get_u32_per_layer(key, 3); });
    }
    for (const GgufTensor & tensor : file.tensors()) {
        const auto * bytes = static_cast<const uint8_t *>(tensor.data);
        n += bytes[0] + bytes[tensor.nbytes - 1];
    }
    return n + file.fingerprint().size();
}

// True if the file was taken.
bool try_file(const std::filesystem::path & path) {
    try {
        const GgufFile file(path);
        EXPECT_GT(read_everything(file), 0U);
    } catch (const Error & error) {
        EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(ErrorCode::bad_input)) << error.what();
        return false;
    }
    gguf_context * context = gguf_init_from_file(path.c_str(), {.no_alloc = true, .ctx = nullptr});
    EXPECT_NE(context, nullptr) << "ggml refuses what we take";
    gguf_free(context);
    return true;
}

TEST(GgufFuzz, BitFlips) {
    const test::TempDir dir;
    const std::string good = test::small_gguf().bytes();
    const size_t metadata = good.size() - 160;
    std::mt19937_64 random(20260101);
    size_t taken = 0;
    size_t refused = 0;
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(1200);
    while (std::chrono::steady_clock::now() < end) {
        std::string bytes = good;
        for (uint64_t n = 1 + random() % 3; n > 0; --n) {
            bytes[random() % metadata] ^= static_cast<char>(1U << (random() % 8));
        }
        test::write_file(dir / "x.gguf", bytes);
        ++(try_file(dir / "x.gguf") ? taken : refused);
        if (HasFailure()) {
            test::write_file(std::filesystem::path(testing::TempDir()) / "kvsieve-fuzz-failure.gguf", bytes);
            FAIL() << "the file is kept as kvsieve-fuzz-failure.gguf";
        }
    }
    EXPECT_GT(taken, 100U);
    EXPECT_GT(refused, 100U);
}

TEST(GgufFuzz, RandomNumbersInPlaceOfSizes) {
    const test::TempDir dir;
    const std::string good = test::small_gguf().bytes();
    std::mt19937_64 random(7);
    const std::array<uint64_t, 8> evil = {
        0, 1, 0x7FFFFFFF, 0xFFFFFFFF, uint64_t{1} << 32U, uint64_t{1} << 62U, uint64_t{1} << 63U, ~uint64_t{0}};
    size_t refused = 0;
    for (size_t at = 4; at + 8 <= good.size() - 160; ++at) {
        std::string bytes = good;
        const uint64_t value = evil[random() % evil.size()];
        bytes.replace(at, 8, static_cast<const char *>(static_cast<const void *>(&value)), 8);
        test::write_file(dir / "x.gguf", bytes);
        refused += try_file(dir / "x.gguf") ? 0 : 1;
        ASSERT_FALSE(HasFailure()) << "at byte " << at;
    }
    EXPECT_GT(refused, 100U);
}

TEST(GgufFuzz, RandomBytes) {
    const test::TempDir dir;
    std::mt19937_64 random(11);
    for (int i = 0; i < 2000; ++i) {
        std::string bytes = i % 2 == 0 ? "" : "GGUF\x03" + std::string(3, '\0');
        for (uint64_t n = random() % 300; n > 0; --n) {
            bytes += static_cast<char>(random() & (i % 4 < 2 ? 0xFFU : 0x07U));
        }
        test::write_file(dir / "x.gguf", bytes);
        EXPECT_FALSE(try_file(dir / "x.gguf"));
    }
}

}  // namespace
}  // namespace kvsieve
