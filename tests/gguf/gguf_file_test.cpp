// SPDX-License-Identifier: MIT
#include "gguf/gguf_file.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>

#include "support/expect_error.h"
#include "support/gguf_writer.h"

namespace kvsieve {
namespace {

using test::expect_error;
using test::GgufBytes;
using test::small_gguf;
using test::TempDir;
using test::write_file;

const std::filesystem::path kModel = std::filesystem::path(KVSIEVE_MODELS_DIR) / "kvsieve-tiny-model-f16.gguf";
const std::filesystem::path kMmproj = std::filesystem::path(KVSIEVE_MODELS_DIR) / "kvsieve-tiny-mmproj-f16.gguf";

class GgufFileTest : public testing::Test {
  protected:
    GgufFile open(const GgufBytes & bytes) {
        write_file(dir_ / "x.gguf", bytes.bytes());
        return GgufFile(dir_ / "x.gguf");
    }
    void expect_refused(const GgufBytes & bytes, const std::string & part) {
        expect_error(ErrorCode::bad_input, part, [&] { (void)open(bytes); });
    }
    TempDir dir_;
};

TEST_F(GgufFileTest, ReadsEveryTypeOfValue) {
    const GgufFile file = open(small_gguf());
    EXPECT_EQ(file.get_u32("a.u8"), 200U);
    EXPECT_EQ(file.get_u32("a.u16"), 60000U);
    EXPECT_EQ(file.get_u32("a.u32"), 4000000000U);
    EXPECT_EQ(file.get_u32("a.u64"), 77U);
    EXPECT_EQ(file.get_u32("a.i64"), 88U);
    EXPECT_EQ(file.get_f32("a.f32"), 1.5F);
    EXPECT_EQ(file.get_f32("a.f64"), 2.5F);
    EXPECT_TRUE(file.get_bool("a.bool"));
    EXPECT_EQ(file.get_str("a.str"), "hello");
    EXPECT_EQ(file.get_i32_array("a.numbers"), (std::vector<int32_t>{1, -2, 3}));
    EXPECT_EQ(file.get_str_array("a.texts"), (std::vector<std::string>{"one", ""}));
    EXPECT_EQ(file.array_size("a.texts"), 2U);
    EXPECT_EQ(file.get_u32_per_layer("a.u8", 2), (std::vector<uint32_t>{200, 200}));
    EXPECT_EQ(file.type_of("a.texts"), "arr[str]");
    EXPECT_EQ(file.type_of("a.i16"), "i16");
    EXPECT_EQ(file.type_of("nothing"), "");
}

TEST_F(GgufFileTest, FallbackIsForMissingKeysOnly) {
    const GgufFile file = open(small_gguf());
    EXPECT_EQ(file.get_u32("b", 5), 5U);
    EXPECT_EQ(file.get_f32("b", 0.5F), 0.5F);
    EXPECT_EQ(file.get_str("b", "x"), "x");
    EXPECT_TRUE(file.get_bool("b", true));
    EXPECT_EQ(file.get_u32("a.u8", 5), 200U);
    expect_error(ErrorCode::bad_input, "'a.str' is str, expected an unsigned 32-bit integer",
                 [&] { (void)file.get_u32("a.str", 5); });
}

TEST_F(GgufFileTest, ErrorsNameKeyExpectedAndActual) {
    const GgufFile file = open(small_gguf());
    const auto refused = [](const std::string & part, const std::function<void()> & call) {
        expect_error(ErrorCode::bad_input, part, call);
    };
    refused("'b' is missing, expected a text", [&] { (void)file.get_str("b"); });
    refused("'a.i32' is -70000, expected an unsigned 32-bit integer", [&] { (void)file.get_u32("a.i32"); });
    refused("'a.f32' is f32, expected an unsigned 32-bit integer", [&] { (void)file.get_u32("a.f32"); });
    refused("'a.u8' is u8, expected a float", [&] { (void)file.get_f32("a.u8"); });
    refused("'a.u8' is u8, expected a bool", [&] { (void)file.get_bool("a.u8"); });
    refused("'a.bool' is bool, expected a text", [&] { (void)file.get_str("a.bool"); });
    refused("'a.numbers' is arr[i32], expected a text", [&] { (void)file.get_str("a.numbers"); });
    refused("'a.texts' is arr[str], expected an array of 32-bit integers",
            [&] { (void)file.get_i32_array("a.texts"); });
    refused("'a.texts' is arr[str], expected a float", [&] { (void)file.get_f32_array("a.texts"); });
    refused("'a.numbers' is arr[i32], expected an array of texts", [&] { (void)file.get_str_array("a.numbers"); });
    refused("'a.u8' is u8, expected an array", [&] { (void)file.array_size("a.u8"); });
    refused("'a.numbers' is an array of 3, expected an unsigned integer or an array of 2",
            [&] { (void)file.get_u32_per_layer("a.numbers", 2); });
    refused("'a.numbers' is -2", [&] { (void)file.get_u32_per_layer("a.numbers", 3); });
}

TEST_F(GgufFileTest, TensorsPointIntoTheFile) {
    const GgufFile file = open(small_gguf());
    ASSERT_EQ(file.tensors().size(), 2U);
    const GgufTensor * first = file.find("first");
    ASSERT_NE(first, nullptr);
    EXPECT_EQ(first->ne, (std::array<int64_t, 4>{4, 2, 1, 1}));
    EXPECT_EQ(first->type, GGML_TYPE_F32);
    EXPECT_EQ(first->nbytes, 32U);
    float last = 0;
    std::memcpy(&last, static_cast<const char *>(first->data) + 28, 4);
    EXPECT_EQ(last, 7.0F);
    EXPECT_EQ(file.find("second")->nbytes, 68U);
    EXPECT_EQ(static_cast<const char *>(file.find("second")->data)[67], 'q');
    EXPECT_EQ(file.find("third"), nullptr);
    EXPECT_EQ(file.tensor_bytes(), 100U);
    file.drop_pages();
    EXPECT_EQ(static_cast<const char *>(file.find("second")->data)[0], 'q');
}

TEST_F(GgufFileTest, AgreesWithGgmlOnRealFiles) {
    for (const auto & path : {kModel, kMmproj}) {
        const GgufFile file(path);
        gguf_context * reference = gguf_init_from_file(path.c_str(), {.no_alloc = true, .ctx = nullptr});
        ASSERT_NE(reference, nullptr);
        ASSERT_EQ(static_cast<int64_t>(file.tensors().size()), gguf_get_n_tensors(reference));
        for (int64_t i = 0; i < gguf_get_n_tensors(reference); ++i) {
            const GgufTensor & tensor = file.tensors()[static_cast<size_t>(i)];
            EXPECT_EQ(tensor.name, gguf_get_tensor_name(reference, i));
            EXPECT_EQ(tensor.type, gguf_get_tensor_type(reference, i));
            EXPECT_EQ(tensor.nbytes, gguf_get_tensor_size(reference, i));
            EXPECT_EQ(tensor.offset, gguf_get_data_offset(reference) + gguf_get_tensor_offset(reference, i));
        }
        for (int64_t i = 0; i < gguf_get_n_kv(reference); ++i) {
            const char * key = gguf_get_key(reference, i);
            EXPECT_TRUE(file.has(key));
            if (gguf_get_kv_type(reference, i) == GGUF_TYPE_STRING) {
                EXPECT_EQ(file.get_str(key), gguf_get_val_str(reference, i));
            } else if (gguf_get_kv_type(reference, i) == GGUF_TYPE_UINT32) {
                EXPECT_EQ(file.get_u32(key), gguf_get_val_u32(reference, i));
            } else if (gguf_get_kv_type(reference, i) == GGUF_TYPE_ARRAY) {
                EXPECT_EQ(file.array_size(key), gguf_get_arr_n(reference, i));
            }
        }
        gguf_free(reference);
    }
}

TEST_F(GgufFileTest, MovesKeepTheMapping) {
    GgufFile file = open(small_gguf());
    const void * data = file.find("first")->data;
    const GgufFile moved = std::move(file);
    EXPECT_EQ(moved.find("first")->data, data);
    EXPECT_EQ(moved.get_str("a.str"), "hello");
}

TEST_F(GgufFileTest, FingerprintFollowsContentNotPath) {
    const GgufBytes good = small_gguf();
    const std::string before = open(good).fingerprint();
    EXPECT_EQ(before.size(), 16U);
    write_file(dir_ / "y.gguf", good.bytes());
    EXPECT_EQ(GgufFile(dir_ / "y.gguf").fingerprint(), before);

    std::string changed = good.bytes();
    changed[changed.find("hello")] = 'H';
    write_file(dir_ / "y.gguf", changed);
    EXPECT_NE(GgufFile(dir_ / "y.gguf").fingerprint(), before);

    changed = good.bytes();
    changed[changed.rfind('q') - 34] = 'Q';  // the middle of a tensor
    write_file(dir_ / "y.gguf", changed);
    EXPECT_NE(GgufFile(dir_ / "y.gguf").fingerprint(), before);

    const GgufFile model(kModel);
    const auto start = std::chrono::steady_clock::now();
    EXPECT_NE(model.fingerprint(), before);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
}

TEST_F(GgufFileTest, RefusesWhatIsNotAGgufFile) {
    const auto refused = [this](const std::string & name, const std::string & part) {
        expect_error(ErrorCode::bad_input, part, [&] { GgufFile file(dir_ / name); });
    };
    refused("missing", "cannot be opened: No such file");
    std::filesystem::create_directory(dir_ / "folder");
    refused("folder", "is not a regular file");
    write_file(dir_ / "empty", "");
    refused("empty", "is empty");
    write_file(dir_ / "text", "Once upon a time there was a text file.");
    refused("text", "is not a GGUF file: it starts with 'Once'");
    write_file(dir_ / "short", "GGU");
    refused("short", "is cut: the magic needs 4 bytes");
}

TEST_F(GgufFileTest, RefusesEveryCutFile) {
    const std::string good = small_gguf().bytes();
    const size_t needed = good.rfind('q') + 1;
    for (size_t n = 1; n < needed; ++n) {
        write_file(dir_ / "cut.gguf", good.substr(0, n));
        expect_error(ErrorCode::bad_input, "is cut", [&] { GgufFile file(dir_ / "cut.gguf"); });
    }
    // Only padding is missing: complete, and upstream takes it too.
    write_file(dir_ / "cut.gguf", good.substr(0, needed));
    EXPECT_EQ(GgufFile(dir_ / "cut.gguf").tensors().size(), 2U);
    const GgufFile whole = open(small_gguf());
    const std::string place = std::to_string(whole.find("second")->offset);
    write_file(dir_ / "cut.gguf", good.substr(0, needed - 1));
    expect_error(ErrorCode::bad_input, "tensor 'second' needs bytes " + place + "..",
                 [&] { GgufFile file(dir_ / "cut.gguf"); });
}

TEST_F(GgufFileTest, RefusesWrongHeaders) {
    expect_refused(GgufBytes().header(0, 0, 1), "is GGUF version 1, expected 2 or 3");
    expect_refused(GgufBytes().header(0, 0, 9), "is GGUF version 9");
    expect_refused(GgufBytes().header(0, 0, 0x03000000), "big-endian");
    expect_refused(GgufBytes().header(uint64_t{1} << 60U, 0), "tensors, which 24 bytes cannot hold");
    expect_refused(GgufBytes().header(0, ~uint64_t{0}), "keys, which 24 bytes cannot hold");
    EXPECT_EQ(open(GgufBytes().header(0, 0)).tensors().size(), 0U);
}

TEST_F(GgufFileTest, RefusesWrongKeys) {
    const auto one = [] { return GgufBytes().header(0, 1); };
    const std::string fill(64, '\0');
    expect_refused(one().put(~uint64_t{0}).raw(fill), "the name of key 0 is said to have");
    expect_refused(one().put<uint64_t>(1000).raw(fill), "the name of key 0 needs 1000 bytes");
    expect_refused(one().key("", GGUF_TYPE_UINT8).raw(fill), "key 0 has no name");
    expect_refused(one().key("k", 13).raw(fill), "key 'k' has type 13");
    expect_refused(one().key("k", GGUF_TYPE_STRING).put<uint64_t>(99).raw(fill), "the text of 'k' needs 99 bytes");
    expect_refused(one().key("k", GGUF_TYPE_ARRAY).put<uint32_t>(GGUF_TYPE_ARRAY).put<uint64_t>(1).raw(fill),
                   "array 'k' has elements of arr");
    expect_refused(one().key("k", GGUF_TYPE_ARRAY).put<uint32_t>(77).put<uint64_t>(1).raw(fill),
                   "array 'k' has elements of type 77");
    expect_refused(one().key("k", GGUF_TYPE_ARRAY).put<uint32_t>(GGUF_TYPE_UINT64).put(uint64_t{1} << 62U).raw(fill),
                   "array 'k' is said to have 4611686018427387904 elements");
    expect_refused(one().key("k", GGUF_TYPE_ARRAY).put<uint32_t>(GGUF_TYPE_UINT64).put<uint64_t>(9).raw(fill),
                   "array 'k' needs 72 bytes");
    expect_refused(one().key("k", GGUF_TYPE_ARRAY).put<uint32_t>(GGUF_TYPE_STRING).put<uint64_t>(9).raw(fill),
                   "array 'k' needs 72 bytes");
    expect_refused(
        GgufBytes().header(0, 2).key("k", GGUF_TYPE_UINT8).put<uint8_t>(0).key("k", GGUF_TYPE_UINT8).raw(fill),
        "key 'k' stands in it twice");
    expect_refused(one().key("general.alignment", GGUF_TYPE_UINT32).put<uint32_t>(48), "has an alignment of 48");
    expect_refused(one().key("general.alignment", GGUF_TYPE_UINT32).put<uint32_t>(0), "has an alignment of 0");
    expect_refused(one().key("general.alignment", GGUF_TYPE_UINT64).put<uint64_t>(32), "'general.alignment' is u64");
    expect_refused(one().key("split.count", GGUF_TYPE_UINT16).put<uint16_t>(3), "is one of 3 parts");
}

TEST_F(GgufFileTest, RefusesWrongTensors) {
    const std::string fill(4096, '\0');
    const auto one = [&](const std::string & name, const std::vector<int64_t> & ne, uint32_t type, uint64_t offset) {
        return GgufBytes().header(1, 0).tensor(name, ne, type, offset).pad().raw(fill);
    };
    constexpr int64_t kHuge = int64_t{1} << 62U;
    expect_refused(one("t", {4}, 999, 0), "tensor 't' has the unknown type 999");
    expect_refused(one("t", {4}, 4, 0), "tensor 't' has the unknown type 4");  // Q4_2, taken out of ggml
    expect_refused(one("t", {0}, 0, 0), "has the shape [0, 1, 1, 1]");
    expect_refused(one("t", {4, -1}, 0, 0), "has the shape [4, -1, 1, 1]");
    expect_refused(one("t", {kHuge, 2, 2, 2}, 0, 0), "has the shape [");
    expect_refused(one("t", {kHuge}, 0, 0), "has the shape [");
    expect_refused(one("t", {1, 1, 1, 1, 1}, 0, 0), "has 5 dimensions");
    expect_refused(one("t", {31}, GGML_TYPE_Q8_0, 0), "rows of 31 elements, expected a multiple of 32 for q8_0");
    expect_refused(one("t", {4}, 0, 8), "said to start at byte 8 of the data, expected 0");
    expect_refused(one("t", {4}, 0, ~uint64_t{31}), "of the data, expected 0");
    expect_refused(one("t", {100000}, 0, 0), "is cut: tensor 't' needs bytes");
    expect_refused(one("", {4}, 0, 0), "the name of tensor 0 has 0 bytes");
    expect_refused(one(std::string(64, 'n'), {4}, 0, 0), "the name of tensor 0 has 64 bytes, expected 1 to 63");
    expect_refused(GgufBytes().header(2, 0).tensor("t", {4}, 0, 0).tensor("t", {4}, 0, 32).pad().raw(fill),
                   "tensor 't' stands in it twice");
    expect_refused(GgufBytes().header(1, 0).tensor("\xFF\n", {4}, 999, 0).raw(fill),
                   "tensor '?"
                   "?' has");
    EXPECT_EQ(open(one("t", {}, 0, 0)).find("t")->nbytes, 4U);
}

}  // namespace
}  // namespace kvsieve
