// SPDX-License-Identifier: MIT
// Probe queries from recording to use: files that are written, read back, refused; what sieve keeps with them.
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "engine/probe_recorder.h"
#include "engine/random_session.h"
#include "support/expect_error.h"

namespace kvsieve::test {
namespace {

constexpr GenerateOptions kShort{.n_predict = 12, .stop = {}, .sampling = {}};

ModelShape other_shape() {
    return narrow_shape(2, 1024);
}

/// A model of its own and probes of two answers that it gave.
struct Recorded {
    TempFile model_file{".gguf"}, probe_file{".gguf"};
    std::shared_ptr<const Model> model;
    ProbeData data;
    int32_t n_rows = 0;

    explicit Recorded(int32_t n_probe = 8) {
        write_model(other_shape(), model_file.path());
        model = Model::load({model_file.path(), std::nullopt, 1});
        ProbeRecorder recorder(model, {}, 10);
        n_rows = recorder.add(random_tokens(50, 1), kShort) + recorder.add(random_tokens(70, 2), kShort);
        EXPECT_EQ(recorder.n_rows(), n_rows);
        data = recorder.probes(n_probe, 1);
        write_probes(probe_file.path(), data);
    }
    [[nodiscard]] ModelOptions with_probes() const {
        ModelOptions options{model_file.path(), std::nullopt, 1};
        options.probes = probe_file.path();
        return options;
    }
};

/// What a method keeps of a prompt, [L * G].
std::vector<std::vector<int32_t>> plan_of(const std::shared_ptr<const Model> & model, const char * method) {
    SessionOptions options;
    options.method = method;
    options.method_options.keep = 0.3;
    Session session(model, options);
    session.feed(random_tokens(200, 3));
    std::vector<std::vector<int32_t>> kept;
    for (const LayerPlan & layer : session.plan()->layers) {
        kept.insert(kept.end(), layer.kept.begin(), layer.kept.end());
    }
    return kept;
}

TEST(ProbeFile, HoldsSharesOfAllThatWasRecorded) {
    const Recorded recorded;
    const ProbeData & data = recorded.data;
    EXPECT_EQ(data.n_samples, 2);
    EXPECT_EQ(data.n_probe, std::min(8, recorded.n_rows));
    EXPECT_LE(recorded.n_rows, 20) << "at most 10 tokens of an answer";
    const auto n = static_cast<size_t>(data.n_probe), n_list = size_t{2} * 4;
    ASSERT_EQ(data.weights.size(), n_list * n);
    for (size_t list = 0; list < n_list; ++list) {
        double sum = 0;
        for (size_t p = 0; p < n; ++p) {
            sum += static_cast<double>(data.weights[list * n + p]);
            EXPECT_GE(data.offsets[list * n + p], 0);
            EXPECT_LT(data.offsets[list * n + p], kShort.n_predict);
            EXPECT_GE(data.shares[list * n + p], 0.0F);
            EXPECT_LE(data.shares[list * n + p], 1.0F);
        }
        EXPECT_NEAR(sum, 1.0, 1e-5);
    }
    const auto model = Model::load(recorded.with_probes());
    EXPECT_EQ(model->info().n_probe, data.n_probe);
    EXPECT_EQ(recorded.model->info().n_probe, 0);
}

TEST(ProbeFile, ChangesWhatSieveKeepsAndNothingElse) {
    const Recorded recorded;
    const auto with = Model::load(recorded.with_probes());
    EXPECT_NE(plan_of(with, "sieve"), plan_of(recorded.model, "sieve"));
    EXPECT_EQ(plan_of(with, "sieve"), plan_of(with, "sieve"));
    EXPECT_EQ(plan_of(with, "snapkv"), plan_of(recorded.model, "snapkv"));
    size_t n = 0;
    for (const auto & kept : plan_of(with, "sieve")) {
        n += kept.size();
    }
    EXPECT_EQ(n, size_t{60} * 2 * 2) << "60 rows in each of 2 layers x 2 KV heads on average";
}

TEST(ProbeFile, OfAnotherModelOrCutIsRefused) {
    const Recorded recorded;
    ModelOptions options = recorded.with_probes();
    TempFile other(".gguf"), cut(".gguf");
    ModelShape shape = other_shape();
    shape.n_ff = 128;
    write_model(shape, other.path());
    options.model = other.path();
    expect_error(ErrorCode::bad_input, "fingerprint", [&] { (void)Model::load(options); });
    options = recorded.with_probes();
    options.probes = recorded.model_file.path();
    expect_error(ErrorCode::bad_input, "expected kvsieve-probes", [&] { (void)Model::load(options); });
    const auto n_bytes = std::filesystem::file_size(recorded.probe_file.path());
    for (const double share : {0.0, 0.1, 0.9}) {
        std::filesystem::copy_file(recorded.probe_file.path(), cut.path(),
                                   std::filesystem::copy_options::overwrite_existing);
        std::filesystem::resize_file(cut.path(), static_cast<uintmax_t>(share * static_cast<double>(n_bytes)));
        options.probes = cut.path();
        EXPECT_THROW((void)Model::load(options), Error) << share;
    }
}

TEST(ProbeFile, OfFewTokensIsAsGoodAsNone) {
    const Recorded recorded;
    const auto plan_with = [&](int32_t n_rows) {
        ProbeRecorder recorder(recorded.model, {}, 100);
        EXPECT_EQ(recorder.add_answer(random_tokens(30, 7), random_tokens(n_rows, 8)), n_rows);
        const ProbeData data = recorder.probes(1000, 1);
        EXPECT_EQ(note_on_rows(data.n_rows).empty(), n_rows >= 12);
        write_probes(recorded.probe_file.path(), data);
        const auto model = Model::load(recorded.with_probes());
        EXPECT_EQ(model->info().n_probe, n_rows);
        EXPECT_EQ(model->info().uses_probes, n_rows >= 12);
        return plan_of(model, "sieve");
    };
    const auto without = plan_of(recorded.model, "sieve");
    EXPECT_EQ(plan_with(11), without);
    EXPECT_NE(plan_with(12), without);
}

TEST(SessionProbes, TakeThePlaceOfTheModelsInASessionAndInASharedPrefill) {
    const Recorded recorded;
    ProbeRecorder recorder(recorded.model, {}, 10);
    EXPECT_EQ(recorder.add_answer(random_tokens(30, 7), random_tokens(6, 8)), 6);
    const auto probes = std::make_shared<ProbeData>(recorder.probes(1000, 1));
    EXPECT_EQ(probes->n_probe, 6) << "every query its own probe";
    const auto model = Model::load(recorded.with_probes());
    const auto prompt = random_tokens(200, 3);
    SharedPrefill shared(model, {}, {{.name = "sieve"}, {.name = "sieve", .probes = probes}, {.name = "h2o"}});
    shared.feed(prompt);
    std::vector<std::vector<LayerPlan>> plans;
    for (const auto & own : {std::shared_ptr<ProbeData>(), probes}) {
        SessionOptions options;
        options.method = "sieve";
        options.method_options.keep = 0.3;
        options.probes = own;
        Session session(model, options);
        session.feed(prompt);
        plans.push_back(session.plan()->layers);
        EXPECT_EQ(shared.begin(options).plan()->layers, plans.back());
    }
    EXPECT_NE(plans[0], plans[1]);
    probes->model_fingerprint = "another";
    SessionOptions options;
    options.probes = probes;
    expect_error(ErrorCode::bad_input, "fingerprint another", [&] { Session(model, options); });
}

TEST(ProbeRecorder, RestoresWhatAnotherRecorded) {
    const Recorded recorded;
    ProbeRecorder whole(recorded.model, {}, 10), second(recorded.model, {}, 10);
    for (const uint32_t seed : {1U, 2U, 3U}) {
        whole.add(random_tokens(50, seed), kShort);
        EXPECT_TRUE(second.restore(whole.latest()));
    }
    whole.add_answer(random_tokens(50, 4), {});
    EXPECT_EQ(whole.latest(), "") << "no token, nothing recorded";
    EXPECT_TRUE(second.restore(whole.latest()));
    EXPECT_FALSE(second.restore("x"));
    const ProbeData expected = whole.probes(8, 1), restored = second.probes(8, 1);
    EXPECT_EQ(restored.n_samples, expected.n_samples);
    EXPECT_EQ(restored.n_rows, expected.n_rows);
    EXPECT_EQ(restored.queries, expected.queries);
    EXPECT_EQ(restored.shares, expected.shares);
    EXPECT_EQ(restored.offsets, expected.offsets);
}

TEST(ProbeRecorder, GoesOnFromTheModelsOwnProbes) {
    const Recorded recorded(1000);  // every query its own probe
    const auto grown_by = [&](const std::shared_ptr<const Model> & model, int32_t n_probe) {
        ProbeRecorder recorder(model, {}, 10);
        recorder.start_from_model();
        recorder.add(random_tokens(60, 3), kShort);
        return recorder.probes(n_probe, 1);
    };
    ProbeRecorder at_once(recorded.model, {}, 10);
    at_once.add(random_tokens(50, 1), kShort);
    at_once.add(random_tokens(70, 2), kShort);
    at_once.add(random_tokens(60, 3), kShort);
    const ProbeData expected = at_once.probes(1000, 1);
    const ProbeData grown = grown_by(Model::load(recorded.with_probes()), 1000);
    EXPECT_EQ(grown.n_samples, 3);
    EXPECT_EQ(grown.n_rows, at_once.n_rows());
    EXPECT_EQ(grown.n_probe, expected.n_probe);
    EXPECT_EQ(grown.queries, expected.queries);
    EXPECT_EQ(grown.offsets, expected.offsets);
    ASSERT_EQ(grown.weights.size(), expected.weights.size());
    for (size_t i = 0; i < grown.weights.size(); ++i) {
        EXPECT_NEAR(grown.weights[i], expected.weights[i], 1e-6);
        EXPECT_NEAR(grown.shares[i], expected.shares[i], 1e-6);
    }
    // a few probes of many queries: the old ones keep their weight
    const Recorded few(4);
    const ProbeData data = grown_by(Model::load(few.with_probes()), 4);
    EXPECT_EQ(data.n_probe, 4);
    EXPECT_EQ(data.n_rows, at_once.n_rows());
    EXPECT_NEAR(std::accumulate(data.weights.begin(), data.weights.begin() + 4, 0.0), 1.0, 1e-5);
    EXPECT_EQ(grown_by(recorded.model, 1000).n_samples, 1) << "a model without probes";
}

TEST(ProbeRecorder, NothingRecordedIsRefused) {
    const ProbeRecorder recorder(random_model(), {}, 10);
    expect_error(ErrorCode::invalid_argument, "no answer was recorded", [&] { (void)recorder.probes(8, 1); });
}

}  // namespace
}  // namespace kvsieve::test
