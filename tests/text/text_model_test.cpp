// SPDX-License-Identifier: MIT
#include "text/text_model.h"

#include <gtest/gtest.h>
#include <llama.h>

#include "gguf/model_writer.h"
#include "support/expect_error.h"
#include "support/gguf_writer.h"
#include "text/utf8_stream.h"

namespace kvsieve {
namespace {

using test::expect_error;
using test::GgufCopy;
using test::Outcome;
using test::TempDir;

const std::filesystem::path kModel = std::filesystem::path(KVSIEVE_MODELS_DIR) / "kvsieve-tiny-model-f16.gguf";
const std::filesystem::path kMmproj = std::filesystem::path(KVSIEVE_MODELS_DIR) / "kvsieve-tiny-mmproj-f16.gguf";

const TextModel & model() {
    static const TextModel text{GgufFile(kModel)};
    return text;
}

const char * const kTexts[] = {"",
                               "Where is the pink circle?",
                               "  two  spaces\nand\tlines\r\n",
                               "Gr\xC3\xBC\xC3\x9F\xC3\xA9 \xE4\xBD\xA0\xE5\xA5\xBD \xF0\x9F\x98\x80",
                               "<|im_start|>user\nhi<|im_end|>",
                               "1234567890 3.14 -7",
                               "\x01\x02\x7F"};

TEST(TextModel, DescribesTheVocabulary) {
    const GgufFile file(kModel);
    EXPECT_EQ(static_cast<size_t>(model().n_vocab()), file.array_size("tokenizer.ggml.tokens"));
    EXPECT_EQ(static_cast<uint32_t>(model().n_embd()), file.get_u32("llama.embedding_length"));
    EXPECT_EQ(static_cast<uint32_t>(model().bos()), file.get_u32("tokenizer.ggml.bos_token_id"));
    EXPECT_TRUE(model().is_eog(static_cast<int32_t>(file.get_u32("tokenizer.ggml.eos_token_id"))));
    EXPECT_FALSE(model().is_eog(model().n_vocab()));
    EXPECT_FALSE(model().is_eog(-1));
    EXPECT_FALSE(model().uses_mrope());
    EXPECT_EQ(model().own_template(), file.get_str("tokenizer.chat_template"));
}

TEST(TextModel, RoundTrips) {
    for (const std::string text : kTexts) {
        const std::vector<int32_t> tokens = model().tokenize(text, false, true);
        EXPECT_EQ(model().detokenize(tokens, true), text);
        const std::vector<int32_t> plain = model().tokenize(text, false, false);
        EXPECT_EQ(model().detokenize(plain), text) << "without special tokens every text is ordinary";
    }
    std::string all;
    for (int i = 1; i < 256; ++i) {
        all += static_cast<char>(i);  // not valid UTF-8: libllama replaces it, but does not fail
    }
    EXPECT_FALSE(model().tokenize(all, false, true).empty());
    EXPECT_EQ(model().tokenize(std::string(3, '\0'), false, true).size(), 3U);
}

TEST(TextModel, SpecialTokens) {
    const std::string turn = "<|im_end|>";
    const std::vector<int32_t> one = model().tokenize(turn, false, true);
    ASSERT_EQ(one.size(), 1U);
    EXPECT_TRUE(model().is_eog(one[0]));
    EXPECT_EQ(model().piece(one[0]), "");
    EXPECT_EQ(model().piece(one[0], true), turn);
    EXPECT_GT(model().tokenize(turn, false, false).size(), 1U);
    const std::vector<int32_t> begun = model().tokenize("a", true, true);
    ASSERT_TRUE(model().adds_bos());
    EXPECT_EQ(begun.front(), model().bos());
}

TEST(TextModel, RefusesTokensOutsideTheVocabulary) {
    expect_error(ErrorCode::invalid_argument, "token -1 is outside the vocabulary of", [] { (void)model().piece(-1); });
    expect_error(ErrorCode::invalid_argument, "outside the vocabulary", [] { (void)model().piece(model().n_vocab()); });
}

TEST(TextModel, MovesKeepTheModel) {
    TextModel first{GgufFile(kModel)};
    TextModel second = std::move(first);
    EXPECT_EQ(second.n_vocab(), model().n_vocab());
    first = std::move(second);
    EXPECT_EQ(first.tokenize("the", false, false), model().tokenize("the", false, false));
}

class DamagedModel : public testing::Test {
  protected:
    void expect_refused(const std::string & part, const std::function<void(GgufCopy &)> & change) {
        GgufCopy copy(kModel);
        change(copy);
        copy.write(dir_ / "x.gguf");
        expect_error(ErrorCode::bad_input, part, [&] { TextModel text{GgufFile(dir_ / "x.gguf")}; });
    }
    TempDir dir_;
};

TEST_F(DamagedModel, IsRefusedInASentence) {
    expect_error(ErrorCode::bad_input, "is a vision encoder (architecture 'clip'), expected a language model",
                 [] { TextModel text{GgufFile(kMmproj)}; });
    expect_refused("unknown model architecture: 'noname'", [](GgufCopy & copy) {
        gguf_set_val_str(copy.meta(), "general.architecture", "noname");
        gguf_set_val_u32(copy.meta(), "noname.block_count", 8);
        gguf_set_val_u32(copy.meta(), "noname.embedding_length", 256);
    });
    expect_refused("'general.architecture' is missing",
                   [](GgufCopy & copy) { gguf_remove_key(copy.meta(), "general.architecture"); });
    expect_refused("has 0 layers, expected 1 to 512",
                   [](GgufCopy & copy) { gguf_set_val_u32(copy.meta(), "llama.block_count", 0); });
    expect_refused("has 513 layers", [](GgufCopy & copy) { gguf_set_val_u32(copy.meta(), "llama.block_count", 513); });
    expect_refused("has a layer without attention heads",
                   [](GgufCopy & copy) { gguf_set_val_u32(copy.meta(), "llama.attention.head_count", 0); });
    expect_refused("has no vocabulary",
                   [](GgufCopy & copy) { gguf_set_val_str(copy.meta(), "tokenizer.ggml.model", "none"); });
    expect_refused("'tokenizer.ggml.tokens' is missing",
                   [](GgufCopy & copy) { gguf_remove_key(copy.meta(), "tokenizer.ggml.tokens"); });
    expect_refused("has token 2 twice in its vocabulary", [](GgufCopy & copy) {
        const char * tokens[] = {"a", "b", "a"};
        gguf_set_arr_str(copy.meta(), "tokenizer.ggml.tokens", tokens, 3);
    });
    expect_refused("has 2 of arr[i32] in 'tokenizer.ggml.token_type', expected", [](GgufCopy & copy) {
        const int32_t types[] = {1, 1};
        gguf_set_arr_data(copy.meta(), "tokenizer.ggml.token_type", GGUF_TYPE_INT32, types, 2);
    });
    expect_refused("has u32 in 'tokenizer.ggml.scores', expected",
                   [](GgufCopy & copy) { gguf_set_val_u32(copy.meta(), "tokenizer.ggml.scores", 1); });
    expect_refused("cannot be read by libllama as a model of architecture 'llama'",
                   [](GgufCopy & copy) { copy.drop("blk.0.attn_q.weight"); });
    expect_refused("cannot be read by libllama as a model of architecture 'llama'", [](GgufCopy & copy) {
        copy.replace("token_embd.weight", GGML_TYPE_F16, {32, 32, 1, 1});
    });
}

// Every key in turn taken away, given another type, and set to numbers that no model has: libllama must never
// end the process.
TEST_F(DamagedModel, NeverEndsTheProcess) {
    ModelShape shape;
    shape.n_layer = 2;
    shape.n_embd = 64;
    shape.n_head = shape.n_head_kv = 2;
    shape.n_ff = 96;
    shape.n_vocab = kMinModelVocab;
    std::ofstream small(dir_ / "small.gguf", std::ios::binary);
    write_random_model(shape, [&](const void * data, size_t n) {
        small.write(static_cast<const char *>(data), static_cast<std::streamsize>(n));
    });
    small.close();
    ASSERT_EQ(TextModel{GgufFile(dir_ / "small.gguf")}.n_vocab(), kMinModelVocab);
    GgufCopy names(dir_ / "small.gguf");
    const auto try_change = [&](const std::string & what, const std::function<void(gguf_context *)> & change) {
        GgufCopy copy(dir_ / "small.gguf");
        change(copy.meta());
        copy.write(dir_ / "x.gguf");
        EXPECT_NE(test::outcome_of([&] {
                      const TextModel text{GgufFile(dir_ / "x.gguf")};
                      for (const std::string sample : kTexts) {
                          (void)text.detokenize(text.tokenize(sample, true, true));
                      }
                  }),
                  Outcome::crash)
            << what;
    };
    for (int64_t i = 0; i < gguf_get_n_kv(names.meta()); ++i) {
        const std::string key = gguf_get_key(names.meta(), i);
        if (key.starts_with("general.name") || key.starts_with("general.file") || key.starts_with("general.quant")) {
            continue;
        }
        try_change(key + " removed", [&](gguf_context * meta) { gguf_remove_key(meta, key.c_str()); });
        try_change(key + " as a text", [&](gguf_context * meta) { gguf_set_val_str(meta, key.c_str(), "x"); });
        try_change(key + " as -1", [&](gguf_context * meta) { gguf_set_val_i32(meta, key.c_str(), -1); });
        if (gguf_get_kv_type(names.meta(), i) == GGUF_TYPE_UINT32) {
            for (const uint32_t value : {0U, 3U, 0x7FFFFFFFU, 0xFFFFFFFFU}) {
                try_change(key + " = " + std::to_string(value),
                           [&](gguf_context * meta) { gguf_set_val_u32(meta, key.c_str(), value); });
            }
        }
    }
}

TEST(Utf8Stream, HoldsBackIncompleteSequences) {
    Utf8Stream stream;
    EXPECT_EQ(stream.push("a\xC3"), "a");
    EXPECT_EQ(stream.push("\xA9 \xF0\x9F"), "\xC3\xA9 ");
    EXPECT_EQ(stream.push("\x98"), "");
    EXPECT_EQ(stream.push("\x80!"), "\xF0\x9F\x98\x80!");
    EXPECT_EQ(stream.finish(), "");
}

TEST(Utf8Stream, ReplacesWhatIsNotUtf8) {
    const std::string mark = "\xEF\xBF\xBD";
    Utf8Stream stream;
    EXPECT_EQ(stream.push("\xFFx\x80y"), mark + "x" + mark + "y");
    EXPECT_EQ(stream.push("\xC0\xAF"), mark + mark);                        // overlong
    EXPECT_EQ(stream.push("\xED\xA0\x80"), mark + mark + mark);             // surrogate
    EXPECT_EQ(stream.push("\xF4\x90\x80\x80"), mark + mark + mark + mark);  // above U+10FFFF
    EXPECT_EQ(stream.push("\xE4\xBD"
                          "a"),
              mark + "a");  // broken off
    EXPECT_EQ(stream.push("\xE4\xBD"), "");
    EXPECT_EQ(stream.finish(), mark);
    EXPECT_EQ(stream.finish(), "");
}

TEST(Utf8Stream, GivesEveryTextByteByByte) {
    for (const std::string text : kTexts) {
        Utf8Stream stream;
        std::string out;
        for (const char c : text) {
            out += stream.push({&c, 1});
        }
        EXPECT_EQ(out + stream.finish(), text);
    }
}

}  // namespace
}  // namespace kvsieve
