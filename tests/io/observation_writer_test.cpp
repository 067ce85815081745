// SPDX-License-Identifier: MIT
#include "io/observation_writer.h"

#include <gtest/gtest.h>

#include "io/observation_file.h"
#include "io/scratch.h"
#include "policy/generated_prompt.h"

namespace kvsieve {
namespace {

using test::error_of;
using test::GeneratedLayer;
using test::Numbers;
using test::Scratch;

PromptShape shape_with_image() {
    PromptShape p{.n_layer = 3, .n_head = 4, .n_head_kv = 2, .head_dim = 4, .n_tokens = 50};
    p.visual_mask.assign(50, 0);
    std::fill_n(p.visual_mask.begin() + 4, 36, uint8_t{1});
    p.rope = {.freqs = {1.0F, 0.01F}, .interleaved = true};
    p.next_position = 41;
    return p;
}

/// A layer whose rows are those of the last n tokens.
class LastRows final : public LayerObservation {
  public:
    LastRows(const PromptShape & prompt, const Traits & wanted, uint64_t seed, int32_t n)
        : layer_(prompt, wanted, Numbers::spread, seed) {
        LayerObservation::operator=(layer_);
        if (!layer_.row_positions.empty()) {
            row_positions = layer_.row_positions.last(static_cast<size_t>(n));
        }
    }
    void rows(std::span<const int32_t> positions, std::vector<float> & out) const override {
        layer_.rows(positions, out);
    }

  private:
    GeneratedLayer layer_;
};

TEST(ObservationWriter, EveryMethodPlansFromTheFileAsFromTheRun) {
    const Scratch dir;
    const PromptShape shape = shape_with_image();
    for (const MethodInfo & info : methods()) {
        SCOPED_TRACE(info.name);
        MethodOptions options{.keep = info.keep_of.empty() ? 1.0 : 0.4};
        for (const ParamSpec & spec : info.params) {
            if (spec.name == "window") {
                options.params["window"] = "8";
            }
        }
        const auto method = make_method(info.name, options);
        ObservationWriter writer(dir / "obs.npz", shape, method->traits());
        std::vector<LayerScore> scores(3);
        for (const int32_t il : {2, 0, 1}) {  // in any order
            const LastRows layer(shape, method->traits(), static_cast<uint64_t>(il), 10);
            scores[static_cast<size_t>(il)] = method->score(shape, il, layer);
            writer.add(il, layer);
        }
        writer.finish();
        if (info.name == "full" || info.name == "random" || info.name == "streaming_llm") {
            continue;  // they observe nothing: the file does not tell the number of layers
        }
        const ObservationFile file(dir / "obs.npz", info.name, method->traits());
        EXPECT_EQ(file.prompt().visual_mask, shape.visual_mask);
        const Plan run = method->plan(shape, scores), dumped = plan_from_file(*method, file);
        EXPECT_EQ(run.layers, dumped.layers);
        EXPECT_EQ(run.extra, dumped.extra);
    }
    EXPECT_EQ(dir.n_files(), 1U);  // nothing is left beside the file
}

TEST(ObservationWriter, KeepsRopeAndPositions) {
    const Scratch dir;
    const PromptShape shape = shape_with_image();
    const Traits traits = method_info("expected_attention").traits;
    ObservationWriter writer(dir / "obs.npz", shape, traits);
    for (int32_t il = 0; il < 3; ++il) {
        writer.add(il, LastRows(shape, traits, 1, 10));
    }
    writer.finish();
    const ObservationFile file(dir / "obs.npz", "expected_attention", traits);
    EXPECT_EQ(file.prompt().rope.freqs, shape.rope.freqs);
    EXPECT_TRUE(file.prompt().rope.interleaved);
    EXPECT_EQ(file.prompt().next_position, 41);
    EXPECT_EQ(file.prompt().n_head_kv, 2);
}

TEST(ObservationWriter, RefusesWhatIsIncomplete) {
    const Scratch dir;
    const PromptShape shape = shape_with_image();
    const Traits traits = method_info("snapkv").traits;
    {
        ObservationWriter writer(dir / "obs.npz", shape, traits);
        writer.add(0, LastRows(shape, traits, 1, 10));
        EXPECT_NE(error_of([&] { writer.add(0, LastRows(shape, traits, 1, 10)); }, ErrorCode::invalid_argument)
                      .find("each layer once"),
                  std::string::npos);
        EXPECT_NE(error_of([&] { writer.add(1, LastRows(shape, traits, 1, 9)); }).find("last 10 prompt tokens"),
                  std::string::npos);
        EXPECT_NE(error_of([&] { writer.finish(); }, ErrorCode::invalid_argument).find("layer 1 of 3"),
                  std::string::npos);
        const Traits keys = method_info("knorm").traits;
        ObservationWriter other(dir / "keys.npz", shape, keys);
        EXPECT_NE(error_of([&] { other.add(0, LastRows(shape, traits, 1, 10)); }).find("no array keys"),
                  std::string::npos);
    }
    EXPECT_EQ(dir.n_files(), 0U);
    EXPECT_NE(
        error_of([&] { ObservationWriter(dir / "no" / "obs.npz", shape, traits); }, ErrorCode::io).find("cannot write"),
        std::string::npos);
}

TEST(NpzSpool, WritesPiecesInAnyOrder) {
    const Scratch dir;
    NpzSpool spool(dir / "a.npz");
    spool.add("x", NpyType::f4, {2, 3});
    spool.add("n", NpyType::i4, {});
    const std::vector<float> second = {4, 5, 6}, first = {1, 2};
    const std::vector<int32_t> n = {7};
    spool.write("x", 3, std::as_bytes(std::span(second)));
    spool.write("n", 0, std::as_bytes(std::span(n)));
    spool.write("x", 0, std::as_bytes(std::span(first)));
    EXPECT_THROW(spool.write("x", 5, std::as_bytes(std::span(first))), Error);
    EXPECT_THROW(spool.write("y", 0, std::as_bytes(std::span(first))), Error);
    spool.finish();
    const NpzFile file(dir / "a.npz");
    EXPECT_EQ(file.read_floats("x"), (std::vector<float>{1, 2, 0, 4, 5, 6}));
    EXPECT_EQ(file.header("x").shape, (std::vector<uint64_t>{2, 3}));
    EXPECT_EQ(file.read_integers("n"), std::vector<int64_t>{7});
}

}  // namespace
}  // namespace kvsieve
