// SPDX-License-Identifier: MIT
#include "gguf/gguf_file.h"
#include "gguf/model_writer.h"
#include "program.h"
#include "text/text_model.h"

namespace cli_test {
namespace {

using kvsieve::GgufFile;

Finished make(const fs::path & out, std::vector<std::string> shape) {
    shape.insert(shape.begin(), {"make-model", "-o", out.string()});
    return run_program(std::move(shape));
}

TEST(MakeModel, WritesTheShapeThatWasAskedFor) {
    const TempFolder folder;
    const Finished made = make(folder / "m.gguf", {"--layers",         "3",     "--width",    "96",  "--heads", "6",
                                                   "--kv-heads",       "2",     "--head-dim", "24",  "--ff",    "160",
                                                   "--vocab",          "300",   "--ctx",      "777", "--type",  "Q8_0",
                                                   "--rope-freq-base", "50000", "--biases"});
    ASSERT_EQ(made.exit_code, 2) << "6 heads of 24 are 144 columns, no multiple of 32";
    ASSERT_EQ(make(folder / "m.gguf", {"--layers",
                                       "3",
                                       "--width",
                                       "96",
                                       "--heads",
                                       "4",
                                       "--kv-heads",
                                       "2",
                                       "--head-dim",
                                       "24",
                                       "--ff",
                                       "160",
                                       "--vocab",
                                       "300",
                                       "--ctx",
                                       "777",
                                       "--type",
                                       "Q8_0",
                                       "--rope-freq-base",
                                       "50000",
                                       "--biases",
                                       "--rope-scaling",
                                       "yarn",
                                       "--rope-factor",
                                       "3"})
                  .exit_code,
              0);
    const GgufFile file(folder / "m.gguf");
    EXPECT_EQ(file.get_str("general.architecture"), "llama");
    EXPECT_EQ(file.get_u32("llama.block_count"), 3U);
    EXPECT_EQ(file.get_u32("llama.attention.head_count"), 4U);
    EXPECT_EQ(file.get_u32("llama.attention.head_count_kv"), 2U);
    EXPECT_EQ(file.get_u32("llama.context_length"), 777U);
    EXPECT_EQ(file.get_f32("llama.rope.freq_base"), 50000.0F);
    EXPECT_EQ(file.get_str("llama.rope.scaling.type"), "yarn");
    const auto * k = file.find("blk.2.attn_k.weight");
    ASSERT_NE(k, nullptr);
    EXPECT_EQ(k->type, GGML_TYPE_Q8_0);
    EXPECT_EQ(k->ne[0], 96);
    EXPECT_EQ(k->ne[1], 48);
    EXPECT_NE(file.find("blk.0.ffn_down.bias"), nullptr);
    EXPECT_NE(file.find("output.weight"), nullptr);
    EXPECT_EQ(file.find("rope_freqs.weight"), nullptr);
}

TEST(MakeModel, CompletesTheShape) {
    const TempFolder folder;
    ASSERT_EQ(make(folder / "m.gguf", {"--layers", "1", "--width", "128", "--heads", "4"}).exit_code, 0);
    const GgufFile file(folder / "m.gguf");
    EXPECT_EQ(file.get_u32("llama.attention.head_count_kv"), 4U);
    EXPECT_EQ(file.get_u32("llama.attention.key_length"), 32U);
    EXPECT_EQ(file.get_u32("llama.feed_forward_length"), 512U);
}

TEST(MakeModel, EqualSeedsGiveEqualFiles) {
    const TempFolder folder;
    for (const auto & [name, seed] : {std::pair("a", "1"), std::pair("b", "1"), std::pair("c", "2")}) {
        ASSERT_EQ(make(folder / name, {"--layers", "1", "--seed", seed}).exit_code, 0);
    }
    EXPECT_EQ(read_file(folder / "a"), read_file(folder / "b"));
    EXPECT_NE(read_file(folder / "a"), read_file(folder / "c"));
}

TEST(MakeModel, EveryTypeAnswers) {
    const TempFolder folder;
    for (const std::string & type : kvsieve::weight_type_names()) {
        const fs::path path = folder / (type + ".gguf");
        ASSERT_EQ(make(path, {"--layers", "1", "--heads", "4", "--head-dim", "64", "--ff", "256", "--vocab", "261",
                              "--type", type})
                      .exit_code,
                  0)
            << type;
        const Finished answered = run_program({"run", "-m", path.string(), "-p", "Hi", "-n", "2", "-t", "1"});
        EXPECT_EQ(answered.exit_code, 0) << type << ": " << answered.err;
    }
}

TEST(MakeModel, VocabularySpellsAnyText) {
    const TempFolder folder;
    ASSERT_EQ(make(folder / "m.gguf", {"--layers", "1", "--vocab", "1500"}).exit_code, 0);
    const kvsieve::TextModel text{GgufFile(folder / "m.gguf")};
    EXPECT_EQ(text.n_vocab(), 1500);
    const std::string sentence = "Où est l'étude? 你好 \xF0\x9F\x99\x82\n\tend";
    EXPECT_EQ(text.detokenize(text.tokenize(sentence, false, false)), sentence);
    EXPECT_TRUE(text.is_eog(text.tokenize("<|im_end|>", false, true).at(0)));
}

TEST(MakeModel, CacheBytesOfTheSpeedModel) {
    kvsieve::ModelShape shape;
    shape.n_layer = 24;
    shape.n_embd = 2048;
    shape.n_head = shape.n_head_kv = 16;
    shape.head_dim = 128;
    EXPECT_EQ(kvsieve::kv_bytes_per_token_f16(shape), 196608U);
}

/// A file that takes a second or more to write.
std::vector<std::string> slow_model(const fs::path & out) {
    return {"make-model", "-o",  out.string(), "--layers", "200",    "--width", "2048",   "--heads", "16",
            "--head-dim", "128", "--ff",       "8192",     "--type", "iq4_nl",  "--seed", "1"};
}

TEST(MakeModel, KilledHalfwayLeavesNoFileUnderItsName) {
    const TempFolder folder;
    const Program program(slow_model(folder / "m.gguf"));
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    program.kill(SIGKILL);
    EXPECT_EQ(program.wait().exit_code, 128 + SIGKILL) << "it was still writing";
    EXPECT_FALSE(fs::exists(folder / "m.gguf"));
}

TEST(MakeModel, InterruptedLeavesNothing) {
    const TempFolder folder;
    write_file(folder / "m.gguf", "the old file");
    const Program program(slow_model(folder / "m.gguf"));
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    program.kill(SIGTERM);
    const Finished finished = program.wait();
    EXPECT_EQ(finished.exit_code, 1);
    EXPECT_EQ(finished.err, "kvsieve: writing the model was stopped\n");
    EXPECT_EQ(read_file(folder / "m.gguf"), "the old file");
    const fs::directory_iterator files(folder.path());
    EXPECT_EQ(std::distance(begin(files), end(files)), 1);
}

}  // namespace
}  // namespace cli_test
