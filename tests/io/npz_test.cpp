// SPDX-License-Identifier: MIT
#include "io/npz.h"

#include <gtest/gtest.h>
#include <zip.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <random>

#include "io/scratch.h"

namespace kvsieve {
namespace {

using test::error_of;
using test::npz_array;
using test::read_bytes;
using test::Scratch;
using test::write_bytes;

/// A zip with one entry of these bytes.
void write_zip(const std::filesystem::path & path, const std::string & entry, const std::string & bytes,
               zip_int32_t method) {
    int code = 0;
    zip_t * const zip = zip_open(path.c_str(), ZIP_CREATE | ZIP_TRUNCATE, &code);
    ASSERT_NE(zip, nullptr);
    const zip_int64_t at =
        zip_file_add(zip, entry.c_str(), zip_source_buffer(zip, bytes.data(), bytes.size(), 0), ZIP_FL_OVERWRITE);
    ASSERT_GE(at, 0);
    ASSERT_EQ(zip_set_file_compression(zip, static_cast<zip_uint64_t>(at), method, 0), 0);
    ASSERT_EQ(zip_close(zip), 0);
}

std::string npy_of_floats(const std::vector<float> & values, std::vector<uint64_t> shape) {
    std::string out = make_npy_header(NpyType::f4, shape);
    for (const std::byte b : std::as_bytes(std::span(values))) {
        out += static_cast<char>(b);
    }
    return out;
}

TEST(Npz, WrittenArraysAreReadBack) {
    const Scratch dir;
    const std::vector<float> f = {1.5F, -2, 0, 3e38F, 1e-45F, 7};
    const std::vector<double> d = {0.1, 2};
    const std::vector<uint16_t> half = {0x3c00, 0xc000, 0x0001, 0x7bff};  // 1, -2, 2^-24, 65504
    const std::vector<int32_t> i = {-5};
    const std::vector<int64_t> wide = {1LL << 40, -1};
    const std::vector<uint8_t> u = {0, 1, 255};
    const std::vector<NpzArray> all = {npz_array("f", NpyType::f4, {2, 3}, f),
                                       npz_array("d", NpyType::f8, {2}, d),
                                       npz_array("half", NpyType::f2, {4, 1}, half),
                                       npz_array("i", NpyType::i4, {}, i),
                                       npz_array("wide", NpyType::i8, {2}, wide),
                                       npz_array("u", NpyType::u1, {3}, u),
                                       npz_array("none", NpyType::f4, {0, 3}, std::vector<float>{})};
    write_npz(dir / "a.npz", all);
    write_npz(dir / "b.npz", all);
    EXPECT_EQ(read_bytes(dir / "a.npz"), read_bytes(dir / "b.npz"));
    EXPECT_EQ(dir.n_files(), 2U);

    const NpzFile file(dir / "a.npz");
    EXPECT_EQ(file.arrays().size(), 7U);
    EXPECT_EQ(file.header("f").shape, (std::vector<uint64_t>{2, 3}));
    EXPECT_EQ(file.read_floats("f"), f);
    EXPECT_EQ(file.read_floats("d"), (std::vector<float>{0.1F, 2}));
    EXPECT_EQ(file.read_floats("half"), (std::vector<float>{1, -2, 0x1p-24F, 65504}));
    EXPECT_EQ(file.read_integers("i"), std::vector<int64_t>{-5});
    EXPECT_EQ(file.read_integers("wide"), wide);
    EXPECT_EQ(file.read_bytes("u"), u);
    EXPECT_TRUE(file.read_floats("none").empty());
    EXPECT_TRUE(file.header("i").shape.empty());
}

TEST(Npz, StoredEntriesAndOtherFilesInTheZipAreFine) {
    const Scratch dir;
    write_zip(dir / "a.npz", "x.npy", npy_of_floats({1, 2}, {2}), ZIP_CM_STORE);
    EXPECT_EQ(NpzFile(dir / "a.npz").read_floats("x"), (std::vector<float>{1, 2}));
    write_zip(dir / "b.npz", "notes.txt", "no array", ZIP_CM_DEFLATE);
    EXPECT_TRUE(NpzFile(dir / "b.npz").arrays().empty());
}

TEST(Npz, HeadersThatNumpyWritesAreRead) {
    const auto parse = [](std::string text, char major = 1) {
        std::string bytes = std::string("\x93NUMPY") + major + '\0';
        bytes += {static_cast<char>(text.size()), '\0'};
        if (major > 1) {
            bytes += std::string(2, '\0');
        }
        bytes += text;
        return parse_npy_header({reinterpret_cast<const uint8_t *>(bytes.data()), bytes.size()}, "x");
    };
    EXPECT_EQ(parse("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 48), }   \n").n_elements, 192U);
    EXPECT_EQ(parse("{'descr': '|u1', 'fortran_order': False, 'shape': (48,), }").shape, std::vector<uint64_t>{48});
    EXPECT_EQ(parse("{'shape': (), 'descr': \"<i4\", 'fortran_order': False}", 2).n_elements, 1U);
    EXPECT_EQ(parse("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", 3).data_offset, 12U + 57U);
    const std::vector<std::pair<std::string, std::string>> bad = {
        {"", "damaged"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 48)", "damaged"},
        {"{'descr': '<f4', 'fortran_order': False}", "not a dictionary of"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4,), } x", "not a dictionary of"},
        {"{'descr': '>f4', 'fortran_order': False, 'shape': (4,), }", "'>f4'"},
        {"{'descr': '<c8', 'fortran_order': False, 'shape': (4,), }", "'<c8'"},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4,), }", "damaged"},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (4,), }", "Fortran"},
        {"{'descr': '<f4', 'fortran_order': Maybe, 'shape': (4,), }", "neither"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-4,), }", "not a number"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4.5,), }", "damaged"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", "not a number"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }", "larger than any file"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }", "dimensions"},
        {"{'descr': '<f4', 'extra': 'x', }", "unknown key"},
    };
    for (const auto & [text, word] : bad) {
        const std::string sentence = error_of([&] { (void)parse(text); });
        EXPECT_NE(sentence.find(word), std::string::npos) << text << ": " << sentence;
    }
}

TEST(Npz, WhatIsNoNpzIsRefusedWithItsName) {
    const Scratch dir;
    EXPECT_NE(error_of([&] { NpzFile(dir / "absent.npz"); }).find("no such file"), std::string::npos);
    EXPECT_NE(error_of([&] { NpzFile(dir / ""); }).find("not a file"), std::string::npos);
    write_bytes(dir / "text.npz", "this is no zip");
    EXPECT_NE(error_of([&] { NpzFile(dir / "text.npz"); }).find("text.npz"), std::string::npos);
    write_bytes(dir / "empty.npz", "");
    (void)error_of([&] { NpzFile(dir / "empty.npz"); });
    write_zip(dir / "short.npz", "x.npy", "\x93NUM", ZIP_CM_STORE);
    EXPECT_NE(error_of([&] { NpzFile(dir / "short.npz"); }).find("array x"), std::string::npos);
    write_zip(dir / "long.npz", "x.npy", npy_of_floats({1, 2, 3}, {3}) + "tail", ZIP_CM_DEFLATE);
    EXPECT_NE(error_of([&] { NpzFile(dir / "long.npz"); }).find("takes 12 bytes"), std::string::npos);
}

TEST(Npz, WrongTypesAndNumbersAreRefused) {
    const Scratch dir;
    const std::vector<float> nan = {0, std::nanf(""), 1}, inf = {std::numeric_limits<float>::infinity()};
    const std::vector<double> big = {1e300};
    const std::vector<uint8_t> u = {1};
    write_npz(dir / "a.npz",
              std::vector<NpzArray>{npz_array("nan", NpyType::f4, {3}, nan), npz_array("inf", NpyType::f4, {1}, inf),
                                    npz_array("big", NpyType::f8, {1}, big), npz_array("u", NpyType::u1, {1}, u)});
    const NpzFile file(dir / "a.npz");
    EXPECT_NE(error_of([&] { (void)file.read_floats("nan"); }).find("NaN at element 1"), std::string::npos);
    EXPECT_NE(error_of([&] { (void)file.read_floats("inf"); }).find("infinity"), std::string::npos);
    EXPECT_NE(error_of([&] { (void)file.read_floats("big"); }).find("infinity"), std::string::npos);
    EXPECT_NE(error_of([&] { (void)file.read_floats("u"); }).find("uint8; expected float32"), std::string::npos);
    EXPECT_NE(error_of([&] { (void)file.read_bytes("nan"); }).find("expected uint8"), std::string::npos);
    EXPECT_NE(error_of([&] { (void)file.read_integers("nan"); }).find("expected int32"), std::string::npos);
    EXPECT_NE(error_of([&] { (void)file.read_floats("absent"); }).find("no array absent"), std::string::npos);
}

/// Opens the file and reads every array; true if nothing was wrong.
bool reads_whole(const std::filesystem::path & path) {
    try {
        const NpzFile file(path);
        for (const auto & [name, header] : file.arrays()) {
            switch (header.type) {
                case NpyType::u1:
                case NpyType::b1:
                    (void)file.read_bytes(name);
                    break;
                case NpyType::i4:
                case NpyType::i8:
                    (void)file.read_integers(name);
                    break;
                default:
                    (void)file.read_floats(name);
            }
        }
        return true;
    } catch (const Error &) {
        return false;
    }
}

std::string sample(const Scratch & dir) {
    std::vector<float> values(500);
    for (size_t i = 0; i < values.size(); ++i) {
        values[i] = std::sin(static_cast<float>(i));
    }
    const std::vector<uint8_t> mask(50, 1);
    write_npz(dir / "good.npz", std::vector<NpzArray>{npz_array("importance", NpyType::f4, {10, 50}, values),
                                                      npz_array("visual_mask", NpyType::u1, {50}, mask)});
    return read_bytes(dir / "good.npz");
}

TEST(Npz, CutAnywhereItIsRefused) {
    const Scratch dir;
    const std::string good = sample(dir);
    ASSERT_TRUE(reads_whole(dir / "good.npz"));
    for (size_t n = 0; n < good.size(); n += n < 300 || n + 300 > good.size() ? 1 : 13) {
        write_bytes(dir / "cut.npz", std::string_view(good).substr(0, n));
        EXPECT_FALSE(reads_whole(dir / "cut.npz")) << n;
    }
}

TEST(Npz, FlippedBytesNeverCrash) {
    const Scratch dir;
    const std::string good = sample(dir);
    std::mt19937 random(11);
    int n_refused = 0, n_tried = 0;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    while (std::chrono::steady_clock::now() < end) {
        std::string bad = good;
        for (uint32_t flips = random() % 4 + 1; flips > 0; --flips) {
            // Half of them in the last 300 bytes, where the directory with the sizes lies.
            const size_t at = random() % 2 == 0 ? random() % bad.size() : bad.size() - 1 - random() % 300;
            bad[at] = static_cast<char>(random());
        }
        write_bytes(dir / "bad.npz", bad);
        n_refused += reads_whole(dir / "bad.npz") ? 0 : 1;
        ++n_tried;
    }
    EXPECT_GT(n_tried, 20);
    EXPECT_GT(n_refused, n_tried / 4);
}

TEST(Npz, FalseSizesCostNoMemory) {
    const Scratch dir;
    const std::string good = sample(dir);
    // Uncompressed size in the central directory: 24 bytes behind its signature "PK\1\2".
    const size_t entry = good.find("PK\x01\x02");
    ASSERT_NE(entry, std::string::npos);
    for (const uint32_t size : {0xfffffff0U, 0x7fffffffU, 1U}) {
        std::string bad = good;
        for (size_t i = 0; i < 4; ++i) {
            bad[entry + 24 + i] = static_cast<char>(size >> (8 * i));
        }
        write_bytes(dir / "bad.npz", bad);
        const std::string text = error_of([&] { NpzFile(dir / "bad.npz"); });
        EXPECT_NE(text.find("bad.npz"), std::string::npos) << text;
    }
    // A header that claims more than its entry holds.
    std::string claim = make_npy_header(NpyType::f4, std::vector<uint64_t>{1U << 20U, 1U << 20U});
    write_zip(dir / "claim.npz", "x.npy", claim + "1234", ZIP_CM_DEFLATE);
    EXPECT_NE(error_of([&] { NpzFile(dir / "claim.npz"); }).find("its entry holds 4"), std::string::npos);
}

TEST(Npz, WritingRefusesShapesThatDoNotFitAndPathsThatCannotBe) {
    const Scratch dir;
    const std::vector<float> f = {1, 2};
    (void)error_of([&] { write_npz(dir / "a.npz", std::vector<NpzArray>{npz_array("f", NpyType::f4, {3}, f)}); },
                   ErrorCode::invalid_argument);
    (void)error_of([&] { write_npz(dir / "no/a.npz", std::vector<NpzArray>{npz_array("f", NpyType::f4, {2}, f)}); },
                   ErrorCode::io);
    (void)error_of([&] { write_npz(dir / "a.npz", {}); }, ErrorCode::invalid_argument);
    EXPECT_EQ(dir.n_files(), 0U);
}

}  // namespace
}  // namespace kvsieve
