// SPDX-License-Identifier: MIT
// Whatever is wrong: one sentence that says it, exit code 2, no trace.
#include <zlib.h>

#include <functional>
#include <ostream>
#include <random>

#include "io/npz.h"
#include "program.h"

namespace cli_test {
namespace {

using Args = std::vector<std::string>;

/// The files that the cases use, made once for the whole program.
class Files {
  public:
    static const Files & get() {
        static const Files files;
        return files;
    }
    [[nodiscard]] std::string operator[](const std::string & name) const { return (folder_ / name).string(); }

  private:
    Files() {
        make_small_model(folder_ / "model.gguf");
        const std::string model = read_file(folder_ / "model.gguf");
        write_file(folder_ / "empty", "");
        write_file(folder_ / "text", "This is no model and no image, but some lines of text.\nReally.\n");
        write_file(folder_ / "half.gguf", model.substr(0, model.size() / 2));
        write_file(folder_ / "header.gguf", model.substr(0, 700));
        std::mt19937_64 random(3);
        std::string noise(50000, ' ');
        std::generate(noise.begin(), noise.end(), [&] { return static_cast<char>(random()); });
        write_file(folder_ / "noise", noise);
        write_file(folder_ / "noise.gguf", model.substr(0, 4) + noise);
        // The same model as architecture "krama": the value, and the prefix of its keys.
        patch_file(folder_ / "model.gguf", folder_ / "arch.gguf", "llama", "krama");
        patch_file(folder_ / "model.gguf", folder_ / "missing.gguf", "blk.1.attn_k.weight", "blk.1.attn_x.weight");
        // A width of 96 columns where the model says 64: the first dimension of blk.0.ffn_up.weight is 64.
        const std::string name = "blk.0.ffn_up.weight" + number(2, 4);
        patch_file(folder_ / "model.gguf", folder_ / "shape.gguf", name + number(64, 8) + number(96, 8),
                   name + number(96, 8) + number(64, 8));

        const std::string picture = read_file(example("form_1.png"));
        write_file(folder_ / "half.png", picture.substr(0, picture.size() / 2));
        write_file(folder_ / "one.png",
                   png_header(1, 1) + png_chunk("IDAT", deflated(std::string(4, '\0'))) + png_chunk("IEND", ""));
        write_file(
            folder_ / "huge.png",
            png_header(30000, 30000) + png_chunk("IDAT", deflated(std::string(1000, '\0'))) + png_chunk("IEND", ""));
        write_file(folder_ / "short.json", "[0.5, 0.5]");
        write_file(folder_ / "long.json", "[0.5, 0.5, 0.5]");
        write_file(folder_ / "broken.json", "[0.5, ");

        const std::string npz = read_file(fs::path(KVSIEVE_TEST_DATA) / "golden" / "importance_01.npz");
        write_file(folder_ / "cut.npz", npz.substr(0, npz.size() / 2));
        write_npz("nan.npz", {2, 8}, std::vector<float>(16, std::nanf("")));
        write_npz("flat.npz", {16}, std::vector<float>(16, 1.0F));
        fs::create_directory(folder_ / "folder");
    }

    static std::string number(uint64_t value, size_t n_byte) {
        std::string bytes;
        for (size_t i = 0; i < n_byte; ++i) {
            bytes += static_cast<char>(value >> (8 * i));
        }
        return bytes;
    }
    static std::string big_endian(uint32_t value) {
        std::string bytes = number(value, 4);
        std::reverse(bytes.begin(), bytes.end());
        return bytes;
    }
    static std::string png_chunk(const std::string & type, const std::string & data) {
        const std::string body = type + data;
        std::vector<Bytef> raw(body.begin(), body.end());
        const auto sum = static_cast<uint32_t>(crc32(0, raw.data(), static_cast<uInt>(raw.size())));
        return big_endian(static_cast<uint32_t>(data.size())) + body + big_endian(sum);
    }
    static std::string png_header(uint32_t width, uint32_t height) {
        return "\x89PNG\r\n\x1a\n" +
               png_chunk("IHDR", big_endian(width) + big_endian(height) + std::string("\x08\x02\x00\x00\x00", 5));
    }
    static std::string deflated(const std::string & text) {
        std::vector<Bytef> raw(text.begin(), text.end());
        std::vector<Bytef> packed(compressBound(raw.size()));
        uLongf size = packed.size();
        EXPECT_EQ(compress(packed.data(), &size, raw.data(), raw.size()), Z_OK);
        return {packed.begin(), packed.begin() + static_cast<std::ptrdiff_t>(size)};
    }
    void write_npz(const std::string & name, const std::vector<uint64_t> & shape, const std::vector<float> & values) {
        const kvsieve::NpzArray array{.name = "importance",
                                      .type = kvsieve::NpyType::f4,
                                      .shape = shape,
                                      .data = std::as_bytes(std::span(values))};
        kvsieve::write_npz(folder_ / name, std::span(&array, 1));
    }

    TempFolder folder_;
};

struct Case {
    std::string name;
    std::function<Args(const Files &)> args;
    std::vector<std::string> expected;  ///< parts of the sentence
};
void PrintTo(const Case & c, std::ostream * out) {
    *out << c.name;
}

/// Arguments that need no file.
std::function<Args(const Files &)> plain(Args args) {
    return [args](const Files &) { return args; };
}
/// A text question to a given model.
std::function<Args(const Files &)> ask(const std::string & model, Args more = {}) {
    return [=](const Files & files) {
        Args args{"run", "-m", files[model], "-p", "Hello"};
        args.insert(args.end(), more.begin(), more.end());
        return args;
    };
}
/// A question about an image to the embedded model.
std::function<Args(const Files &)> ask_about(const std::string & image) {
    return [=](const Files & files) { return Args{"run", "--image", files[image], "-p", "What?"}; };
}
std::function<Args(const Files &)> make(Args shape) {
    return [=](const Files & files) {
        Args args{"make-model", "-o", files["never.gguf"]};
        args.insert(args.end(), shape.begin(), shape.end());
        return args;
    };
}
std::function<Args(const Files &)> plan(const std::string & file, const std::string & method) {
    return [=](const Files & files) { return Args{"plan", files[file], "--method", method, "--keep", "0.5"}; };
}

class BadInput : public testing::TestWithParam<Case> {};

TEST_P(BadInput, GetsOneSentence) {
    const Files & files = Files::get();
    expect_refused(run_program(GetParam().args(files)), GetParam().expected);
    EXPECT_FALSE(fs::exists(files["never.gguf"]));
}

const std::vector<Case> kCommandLine{
    {"NoCommand", plain({}), {"no command", "run, methods, plan"}},
    {"UnknownCommand", plain({"rum"}), {"unknown command 'rum'", "did you mean 'run'"}},
    {"UnknownOption", plain({"run", "--kep", "0.2", "-p", "Hi"}), {"unknown option '--kep'", "'--keep'", "run --help"}},
    {"UnknownOptionWithValue", plain({"run", "-p", "Hi", "--n-predcit=3"}), {"'--n-predcit'", "'--n-predict'"}},
    {"UnknownShortOption", plain({"run", "-p", "Hi", "-z"}), {"unknown option '-z'", "run --help"}},
    {"ExtraWord", plain({"run", "-p", "Hi", "picture.png"}), {"'picture.png'", "run --help"}},
    {"MissingValue", plain({"run", "-p"}), {"--prompt needs a value"}},
    {"TwicePrompt", plain({"run", "-p", "a", "-p", "b"}), {"--prompt was given more than once"}},
    {"UnknownMethod", plain({"run", "-p", "Hi", "--method", "nosuch"}), {"'nosuch'", "prefixkv", "aircache"}},
    {"MissingProbes", plain({"run", "-p", "Hi", "--probes", "no-such.gguf"}), {"no-such.gguf"}},
    {"UnknownParameter",
     plain({"run", "-p", "Hi", "--method", "prefixkv", "--keep", "0.5", "--set", "beta=1"}),
     {"beta", "prefixkv"}},
    {"KeepZero", plain({"run", "-p", "Hi", "--method", "prefixkv", "--keep", "0"}), {"keep", "(0, 1]"}},
    {"KeepAboveOne", plain({"run", "-p", "Hi", "--method", "prefixkv", "--keep", "1.5"}), {"keep", "1.5", "(0, 1]"}},
    {"KeepNan", plain({"run", "-p", "Hi", "--method", "prefixkv", "--keep", "nan"}), {"keep", "nan", "(0, 1]"}},
    {"KeepWord", plain({"run", "-p", "Hi", "--method", "prefixkv", "--keep", "abc"}), {"keep", "abc", "(0, 1]"}},
    {"NoKeep", plain({"run", "-p", "Hi", "--method", "prefixkv"}), {"prefixkv", "--keep"}},
    {"TempWord", plain({"run", "-p", "Hi", "--temp", "warm"}), {"--temp takes a number from 0 to 100, not 'warm'"}},
    {"TopP", plain({"run", "-p", "Hi", "--top-p", "1.5"}), {"--top-p takes a number from 0 to 1, not '1.5'"}},
    {"NPredict", plain({"run", "-p", "Hi", "-n", "-3"}), {"--n-predict takes a whole number", "'-3'"}},
    {"Threads", plain({"run", "-p", "Hi", "-t", "1000"}), {"--threads takes a whole number from 0 to 512"}},
    {"Seed", plain({"run", "-p", "Hi", "--seed", "x"}), {"--seed", "'x'"}},
    {"KvType", plain({"run", "-p", "Hi", "--kv-type", "f64"}), {"--kv-type", "f16, q8_0, q4_0", "'f64'"}},
    {"KvTypeAutoOfAnother",
     plain({"run", "-p", "Hi", "--kv-type", "auto", "--method", "prefixkv", "--keep", "0.5"}),
     {"--kv-type auto", "sieve", "prefixkv does not choose"}},
    {"KvTypeAutoOfEverything", plain({"run", "-p", "Hi", "--kv-type", "auto"}), {"--kv-type auto", "full does not"}},
    {"KvRot", plain({"run", "-p", "Hi", "--kv-rot", "maybe"}), {"--kv-rot", "on, off", "'maybe'"}},
    {"NoQuestion", plain({"run"}), {"no question", "-p"}},
    {"EmptyQuestion", plain({"run", "-p", ""}), {"-p", "empty"}},
    {"TwoReaders", plain({"run", "-p", "-", "-i"}), {"-p -", "-i"}},
    {"LonelyMmproj", plain({"run", "-p", "Hi", "--mmproj", "x.gguf"}), {"--mmproj", "-m"}},
    {"ImageWithoutMmproj", ask("model.gguf", {"--image", "x.png"}), {"--image", "--mmproj"}},
    {"OverlayWithoutImage", plain({"run", "-p", "Hi", "--overlay", "x.png"}), {"--overlay", "--image"}},
    {"EmptyStop", ask("model.gguf", {"--stop", ""}), {"--stop"}},
    {"BadGrammar", ask("model.gguf", {"--grammar", "root ::= ("}), {"grammar"}},
    {"MissingGrammar", ask("model.gguf", {"--grammar", "@/no/such/file"}), {"/no/such/file"}},
    {"UnknownTemplate", ask("model.gguf", {"--chat-template", "klingon"}), {"klingon", "--chat-template"}},
    {"MarksAndImages", plain({"run", "-p", "<image> and <image>", "--image", example("form_1.png")}), {"image"}},
};

const std::vector<Case> kFiles{
    {"ModelMissing", ask("no-such.gguf"), {"no-such.gguf"}},
    {"ModelEmpty", ask("empty"), {"empty", "GGUF"}},
    {"ModelIsText", ask("text"), {"text", "GGUF"}},
    {"ModelIsFolder", ask("folder"), {"folder"}},
    {"ModelTruncated", ask("half.gguf"), {"half.gguf"}},
    {"ModelHeaderTruncated", ask("header.gguf"), {"header.gguf"}},
    {"ModelNoise", ask("noise"), {"noise", "GGUF"}},
    {"ModelNoiseBehindMagic", ask("noise.gguf"), {"noise.gguf"}},
    {"ModelArchitecture", ask("arch.gguf"), {"arch.gguf", "krama", "llama"}},
    {"ModelTensorMissing", ask("missing.gguf"), {"missing.gguf", "blk.1.attn_k.weight"}},
    {"ModelTensorShape", ask("shape.gguf"), {"shape.gguf", "blk.0.ffn_up.weight", "64", "96"}},
    {"MmprojAsModel",
     plain({"run", "-m", KVSIEVE_MODELS_DIR "/kvsieve-tiny-mmproj-f16.gguf", "-p", "Hi"}),
     {"kvsieve-tiny-mmproj-f16.gguf", "clip"}},
    {"MmprojDoesNotFit",
     ask("model.gguf", {"--mmproj", KVSIEVE_MODELS_DIR "/kvsieve-tiny-mmproj-f16.gguf"}),
     {"kvsieve-tiny-mmproj-f16.gguf", "64"}},
    {"ModelAsMmproj",
     ask("model.gguf", {"--mmproj", KVSIEVE_MODELS_DIR "/kvsieve-tiny-model-f16.gguf"}),
     {"kvsieve-tiny-model-f16.gguf"}},
    {"MmprojMissing", ask("model.gguf", {"--mmproj", "/no/such/file"}), {"/no/such/file"}},
    {"MmprojNoise",
     [](const Files & f) {
         return ask("model.gguf", {"--mmproj", f["noise"]})(f);
     },
     {"noise"}},
    {"ImageMissing", ask_about("no-such.png"), {"no-such.png"}},
    {"ImageIsText", ask_about("text"), {"text", "image"}},
    {"ImageEmpty", ask_about("empty"), {"empty"}},
    {"ImageTruncated", ask_about("half.png"), {"half.png"}},
    {"ImageNoise", ask_about("noise"), {"noise"}},
    {"ImageOnePixel", ask_about("one.png"), {"one.png", "1 x 1"}},
    {"ImageHuge", ask_about("huge.png"), {"huge.png", "30000 x 30000"}},
    {"ImageIsFolder", ask_about("folder"), {"folder"}},
    {"ProfileLength",
     [](const Files & f) {
         return ask("model.gguf", {"--method", "prefixkv", "--profile", f["long.json"]})(f);
     },
     {"3 layers", "expected 2"}},
    {"ProfileBroken",
     [](const Files & f) {
         return ask("model.gguf", {"--method", "prefixkv", "--profile", f["broken.json"]})(f);
     },
     {"broken.json"}},
    {"ProfileAndKeep",
     [](const Files & f) {
         return ask("model.gguf", {"--method", "prefixkv", "--keep", "0.5", "--profile", f["short.json"]})(f);
     },
     {"--keep", "--profile"}},
    {"LongPrompt",
     [](const Files & f) { return Args{"run", "-m", f["model.gguf"], "-c", "64", "-p", std::string(500, '!')}; },
     {"64", "-c"}},
    {"ImageLargerThanTheContext",
     plain({"run", "--image", example("form_1.png"), "-c", "64", "-p", "Hi"}),
     {"the image takes 576 tokens", "64", "-c"}},
    {"VisualMethodWithoutImage", ask("model.gguf", {"--method", "aircache", "--keep", "0.5"}), {"visual"}},
    {"OverlayFolderMissing",
     plain({"run", "--image", example("form_1.png"), "-p", "What?", "--overlay", "/no/such/folder/o.png"}),
     {"cannot write /no/such/folder/o.png"}},
    {"OverlayIsFolder",
     [](const Files & f) {
         return Args{"run", "--image", example("form_1.png"), "-p", "What?", "--overlay", f["folder"]};
     },
     {"cannot write", "folder"}},
};

const std::vector<Case> kMakeModel{
    {"NoOut", plain({"make-model"}), {"--out"}},
    {"OutFolderMissing",
     plain({"make-model", "-o", "/no/such/folder/m.gguf"}),
     {"cannot write /no/such/folder/m.gguf"}},
    {"OutIsFolder",
     [](const Files & f) {
         return Args{"make-model", "-o", f["folder"]};
     },
     {"cannot write", "folder"}},
    {"KvHeads", make({"--heads", "8", "--kv-heads", "3"}), {"8", "3", "multiple"}},
    {"MoreKvHeads", make({"--heads", "4", "--kv-heads", "8"}), {"KV heads", "1 to 4", "8"}},
    {"HeadDoesNotFollow", make({"--width", "100"}), {"--head-dim", "100", "8"}},
    {"OddHead", make({"--head-dim", "33"}), {"even", "33"}},
    {"BlockSize", make({"--width", "100", "--head-dim", "32", "--type", "q8_0"}), {"q8_0", "32", "width", "100"}},
    {"SuperBlockSize", make({"--ff", "320", "--type", "q4_K"}), {"q4_K", "256", "feed-forward", "320"}},
    {"Type", make({"--type", "q9"}), {"'q9'", "q4_K"}},
    {"TypeThatNeedsAMatrix", make({"--type", "iq1_s"}), {"'iq1_s'"}},
    {"Vocabulary", make({"--vocab", "100"}), {"vocabulary", "261", "100"}},
    {"NoLayers", make({"--layers", "0"}), {"layers", "not 0"}},
    {"LayersWord", make({"--layers", "many"}), {"--layers takes a whole number", "'many'"}},
    {"FactorWithoutScaling", make({"--rope-factor", "4"}), {"RoPE", "linear"}},
    {"TooBig",
     make({"--layers", "500", "--width", "65536", "--head-dim", "128", "--ff", "262144", "--type", "f32"}),
     {"cannot write", "free"}},
};

const std::vector<Case> kPlan{
    {"Missing", plan("no-such.npz", "prefixkv"), {"no-such.npz"}},
    {"Cut", plan("cut.npz", "prefixkv"), {"cut.npz"}},
    {"Text", plan("text", "prefixkv"), {"text"}},
    {"NaN", plan("nan.npz", "prefixkv"), {"nan.npz", "importance"}},
    {"Dimensions", plan("flat.npz", "prefixkv"), {"flat.npz", "importance"}},
    {"LacksArray", plan("nan.npz", "aircache"), {"nan.npz"}},
};

std::string case_name(const testing::TestParamInfo<Case> & info) {
    return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(CommandLine, BadInput, testing::ValuesIn(kCommandLine), case_name);
INSTANTIATE_TEST_SUITE_P(File, BadInput, testing::ValuesIn(kFiles), case_name);
INSTANTIATE_TEST_SUITE_P(MakeModel, BadInput, testing::ValuesIn(kMakeModel), case_name);
INSTANTIATE_TEST_SUITE_P(Plan, BadInput, testing::ValuesIn(kPlan), case_name);

}  // namespace
}  // namespace cli_test
