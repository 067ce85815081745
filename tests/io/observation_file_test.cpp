// SPDX-License-Identifier: MIT
#include "io/observation_file.h"

#include <gtest/gtest.h>

#include <cmath>

#include "io/scratch.h"

namespace kvsieve {
namespace {

using test::error_of;
using test::npz_array;
using test::Scratch;

std::filesystem::path golden(const std::string & name) {
    return std::filesystem::path(KVSIEVE_TEST_DATA) / "golden" / (name + ".npz");
}

constexpr uint64_t kLayers = 2, kHeads = 2, kTokens = 6, kRows = 3;

/// Causal, uniform attention rows of the last n queries, [L, H, n, T].
std::vector<float> uniform_rows(uint64_t n) {
    std::vector<float> out;
    for (uint64_t lh = 0; lh < kLayers * kHeads; ++lh) {
        for (uint64_t q = kTokens - n; q < kTokens; ++q) {
            for (uint64_t k = 0; k < kTokens; ++k) {
                out.push_back(k <= q ? 1.0F / static_cast<float>(q + 1) : 0.0F);
            }
        }
    }
    return out;
}

/// Arrays of a small prompt: text, two visual tokens, three text tokens.
struct Arrays {
    std::vector<float> importance = std::vector<float>(kLayers * kTokens, 1.0F);
    std::vector<float> colsum = std::vector<float>(kLayers * kHeads * kTokens, 1.0F);
    std::vector<float> rows = uniform_rows(kRows);
    std::vector<float> attention = uniform_rows(kTokens);
    std::vector<float> keys = std::vector<float>(kLayers * 1 * kTokens * 4, 0.5F);
    std::vector<uint8_t> mask = {0, 1, 1, 0, 0, 0};
    std::vector<int32_t> n_head_kv = {1};

    [[nodiscard]] NpzArray get(const std::string & name) const {
        if (name == "importance") {
            return npz_array(name, NpyType::f4, {kLayers, kTokens}, importance);
        }
        if (name == "colsum") {
            return npz_array(name, NpyType::f4, {kLayers, kHeads, kTokens}, colsum);
        }
        if (name == "rows") {
            return npz_array(name, NpyType::f4, {kLayers, kHeads, kRows, kTokens}, rows);
        }
        if (name == "attention") {
            return npz_array(name, NpyType::f4, {kLayers, kHeads, kTokens, kTokens}, attention);
        }
        if (name == "keys") {
            return npz_array(name, NpyType::f4, {kLayers, 1, kTokens, 4}, keys);
        }
        if (name == "n_head_kv") {
            return npz_array(name, NpyType::i4, {}, n_head_kv);
        }
        return npz_array("visual_mask", NpyType::u1, {kTokens}, mask);
    }

    [[nodiscard]] std::filesystem::path write(const Scratch & dir, const std::vector<std::string> & names) const {
        std::vector<NpzArray> arrays;
        for (const std::string & name : names) {
            arrays.push_back(get(name));
        }
        write_npz(dir / "obs.npz", arrays);
        return dir / "obs.npz";
    }
};

ObservationFile open_for(const std::string & method, const std::filesystem::path & path) {
    return {path, method, method_info(method).traits};
}

TEST(ObservationFile, ShapeComesFromTheArrays) {
    const Scratch dir;
    const auto file = open_for("aircache", Arrays().write(dir, {"rows", "keys", "visual_mask"}));
    EXPECT_EQ(file.prompt().n_layer, 2);
    EXPECT_EQ(file.prompt().n_head, 2);
    EXPECT_EQ(file.prompt().n_head_kv, 1);
    EXPECT_EQ(file.prompt().head_dim, 4);
    EXPECT_EQ(file.prompt().n_tokens, 6);
    EXPECT_EQ(file.prompt().visual_mask, (std::vector<uint8_t>{0, 1, 1, 0, 0, 0}));
    EXPECT_TRUE(file.layer(0).keys.empty());  // aircache does not look at keys
    const auto scalar = open_for("full", Arrays().write(dir, {"importance", "n_head_kv"}));
    EXPECT_EQ(scalar.prompt().n_head_kv, 1);
}

TEST(ObservationFile, SumsAreMadeFromAttention) {
    for (const std::string name : {"scene_01", "scene_02"}) {
        Traits both;
        both.importance = both.colsum = true;
        const ObservationFile given(golden(name), "test", both);
        const NpzFile npz(golden(name));
        const auto attention = npz.read_floats("attention");
        const auto & p = given.prompt();
        const std::vector<uint64_t> shape = npz.header("attention").shape;
        const Scratch dir;
        write_npz(dir / "attention.npz", std::vector<NpzArray>{npz_array("attention", NpyType::f4, shape, attention)});
        const ObservationFile made(dir / "attention.npz", "test", both);
        Traits only;
        only.importance = true;
        const auto colsum = npz.read_floats("colsum");
        write_npz(dir / "colsum.npz",
                  std::vector<NpzArray>{npz_array("colsum", NpyType::f4, npz.header("colsum").shape, colsum)});
        const ObservationFile from_colsum(dir / "colsum.npz", "test", only);
        for (int32_t il = 0; il < p.n_layer; ++il) {
            for (size_t i = 0; i < given.layer(il).colsum.size(); ++i) {
                EXPECT_NEAR(made.layer(il).colsum[i], given.layer(il).colsum[i], 2e-6F * given.layer(il).colsum[i]);
            }
            for (size_t k = 0; k < given.layer(il).importance.size(); ++k) {
                const float expected = given.layer(il).importance[k];
                EXPECT_NEAR(made.layer(il).importance[k], expected, 2e-6F * expected);
                EXPECT_NEAR(from_colsum.layer(il).importance[k], expected, 2e-6F * expected);
            }
        }
    }
}

TEST(ObservationFile, RowsComeFromRowsAndWhereTheyDoNotReachFromAttention) {
    const Scratch dir;
    Arrays arrays;
    for (float & x : arrays.rows) {
        x *= 2;  // to tell them apart
    }
    const auto text_only = open_for("aircache", arrays.write(dir, {"rows", "attention", "visual_mask"}));
    EXPECT_EQ(text_only.layer(0).row_positions.front(), 3);  // `rows` reaches: attention is not read
    Traits window;
    window.rows = RowsWanted::last_window;
    window.window = 5;
    const ObservationFile wide(dir / "obs.npz", "test", window);
    EXPECT_EQ(wide.layer(1).row_positions.front(), 0);
    std::vector<float> out;
    const std::vector<int32_t> positions = {1, 3, 5};
    wide.layer(1).rows(positions, out);
    ASSERT_EQ(out.size(), kHeads * 3 * kTokens);
    EXPECT_FLOAT_EQ(out[0], 0.5F);                                   // head 0, query 1: attention
    EXPECT_FLOAT_EQ(out[kTokens], 0.5F);                             // query 3: 2 * 1/4
    EXPECT_FLOAT_EQ(out[(kHeads * 3 - 1) * kTokens + 5], 1.0F / 3);  // head 1, query 5: 2 * 1/6
    EXPECT_THROW(text_only.layer(0).rows(positions, out), Error);
}

TEST(ObservationFile, AMissingArrayIsNamedWithItsMethod) {
    const Scratch dir;
    const Arrays arrays;
    const auto sentence = [&](const std::string & method, const std::vector<std::string> & names) {
        return error_of([&] { (void)open_for(method, arrays.write(dir, names)); });
    };
    EXPECT_NE(
        sentence("prefixkv", {"rows"}).find("no array importance (or colsum or attention), which method prefixkv"),
        std::string::npos);
    EXPECT_NE(sentence("aircache", {"importance", "visual_mask"}).find("no array rows (or attention)"),
              std::string::npos);
    EXPECT_NE(sentence("aircache", {"rows"}).find("no array visual_mask"), std::string::npos);
    EXPECT_NE(sentence("full", {"visual_mask"}).find("numbers of layers"), std::string::npos);
}

TEST(ObservationFile, RowsThatDoNotReachTheImageAreRefused) {
    const Scratch dir;
    Arrays arrays;
    arrays.mask = {0, 1, 0, 0, 0, 0};  // text from 2 on, rows from 3 on
    const auto file = open_for("aircache", arrays.write(dir, {"rows", "visual_mask"}));
    const auto method = make_method("aircache", {.keep = 0.5, .params = {{"queries", "all"}}});
    const std::string text = error_of([&] { (void)plan_from_file(*method, file); });
    EXPECT_NE(text.find("array rows"), std::string::npos) << text;
    const auto full = open_for("aircache", arrays.write(dir, {"rows", "attention", "visual_mask"}));
    EXPECT_EQ(plan_from_file(*method, full).layers.size(), 2U);
}

TEST(ObservationFile, ContradictionsAreRefused) {
    const Scratch dir;
    const Arrays arrays;
    const auto with = [&](NpzArray odd, std::vector<std::string> names = {"importance"}) {
        std::vector<NpzArray> list;
        for (const std::string & name : names) {
            list.push_back(arrays.get(name));
        }
        list.push_back(std::move(odd));
        write_npz(dir / "odd.npz", list);
        return error_of([&] { (void)open_for("full", dir / "odd.npz"); });
    };
    const std::vector<float> f(64, 0.5F);
    const std::vector<uint8_t> u(64, 1);
    const std::vector<int32_t> i(8, 3);
    const auto floats = [&](const std::string & name, std::vector<uint64_t> shape, size_t n) {
        return NpzArray{name, NpyType::f4, std::move(shape), std::as_bytes(std::span(f).first(n))};
    };
    EXPECT_NE(with(floats("colsum", {2, 2, 5}, 20)).find("has 5 as T; expected 6, as in array importance"),
              std::string::npos);
    EXPECT_NE(with(floats("keys", {3, 1, 6, 2}, 36)).find("expected 2"), std::string::npos);
    EXPECT_NE(with(floats("colsum", {2, 6}, 12)).find("3 dimensions [L, H, T]"), std::string::npos);
    EXPECT_NE(with(floats("values", {2, 0, 6, 2}, 0)).find("no dimension of that size"), std::string::npos);
    EXPECT_NE(with(floats("rows", {1, 1, 7, 6}, 42), {}).find("expected at most 6"), std::string::npos);
    EXPECT_NE(with({"visual_mask", NpyType::u1, {5}, std::as_bytes(std::span(u).first(5))}).find("visual_mask"),
              std::string::npos);
    EXPECT_NE(with({"n_head_kv", NpyType::i4, {}, std::as_bytes(std::span(i).first(1))}, {"colsum"}).find("KV heads"),
              std::string::npos);
    EXPECT_NE(with({"n_head_kv", NpyType::i4, {}, std::as_bytes(std::span(i).first(1))}, {"keys"}).find("as in keys"),
              std::string::npos);
    EXPECT_NE(with({"n_head_kv", NpyType::i4, {2}, std::as_bytes(std::span(i).first(2))}).find("a scalar"),
              std::string::npos);
}

TEST(ObservationFile, ImpossibleAttentionIsRefused) {
    const Scratch dir;
    Arrays negative;
    negative.importance[3] = -0.5F;
    EXPECT_NE(error_of([&] { (void)open_for("prefixkv", negative.write(dir, {"importance"})); }).find("negative"),
              std::string::npos);
    Arrays nan;
    nan.rows[3] = std::nanf("");
    EXPECT_NE(error_of([&] {
                  (void)open_for("aircache", nan.write(dir, {"rows", "visual_mask"}));
              }).find("NaN"),
              std::string::npos);
    Arrays ahead;
    ahead.rows[4] = 0.1F;  // query 3 looks at position 4
    EXPECT_NE(error_of([&] {
                  (void)open_for("aircache", ahead.write(dir, {"rows", "visual_mask"}));
              }).find("position 3 attends to position 4"),
              std::string::npos);
    Arrays mask;
    mask.mask[2] = 2;
    EXPECT_NE(error_of([&] {
                  (void)open_for("full", mask.write(dir, {"importance", "visual_mask"}));
              }).find("0 or 1"),
              std::string::npos);
}

TEST(ObservationFile, QueriesOrTheirMomentsAreReadWithTheRotation) {
    const Scratch dir;
    const Arrays arrays;
    const std::vector<float> mean(kLayers * kHeads * 4, 0.25F), cov(kLayers * kHeads * 16, 0.5F), freqs = {1.0F, 0.1F};
    const std::vector<float> values(kLayers * kTokens * 4, 1.0F);
    const auto with = [&](const std::vector<NpzArray> & more) {
        std::vector<NpzArray> list = {arrays.get("keys"), arrays.get("rows"),
                                      npz_array("values", NpyType::f4, {kLayers, 1, kTokens, 4}, values)};
        list.insert(list.end(), more.begin(), more.end());
        write_npz(dir / "obs.npz", list);
        return dir / "obs.npz";
    };
    const NpzArray mean_array = npz_array("query_mean", NpyType::f4, {kLayers, kHeads, 4}, mean);
    const NpzArray cov_array = npz_array("query_cov", NpyType::f4, {kLayers, kHeads, 4, 4}, cov);
    const NpzArray freq_array = npz_array("rope_freqs", NpyType::f4, {2}, freqs);
    const auto file = open_for("expected_attention", with({mean_array, cov_array, freq_array}));
    EXPECT_EQ(file.layer(1).query_mean.size(), kHeads * 4);
    EXPECT_EQ(file.layer(1).query_cov.size(), kHeads * 16);
    EXPECT_TRUE(file.layer(1).queries.empty());
    EXPECT_EQ(file.prompt().rope.freqs, freqs);
    EXPECT_FALSE(file.prompt().rope.interleaved);
    EXPECT_EQ(file.prompt().next_position, static_cast<int32_t>(kTokens));
    const auto sentence = [&](const std::vector<NpzArray> & more) {
        return error_of([&] { (void)open_for("expected_attention", with(more)); });
    };
    EXPECT_NE(sentence({freq_array}).find("no array queries (or query_mean)"), std::string::npos);
    EXPECT_NE(sentence({mean_array}).find("no array rope_freqs"), std::string::npos);
    const std::vector<int32_t> two = {2}, negative = {-1};
    EXPECT_NE(sentence({mean_array, freq_array, npz_array("rope_layout", NpyType::i4, {}, two)})
                  .find("it is 2; expected 0 to 1"),
              std::string::npos);
    EXPECT_NE(
        sentence({mean_array, freq_array, npz_array("next_position", NpyType::i4, {}, negative)}).find("next_position"),
        std::string::npos);
}

TEST(ObservationFile, MovedFilesStayUsable) {
    const Scratch dir;
    auto file = open_for("prefixkv", Arrays().write(dir, {"importance"}));
    const auto moved = std::move(file);
    EXPECT_EQ(moved.layer(1).importance.size(), kTokens);
}

}  // namespace
}  // namespace kvsieve
