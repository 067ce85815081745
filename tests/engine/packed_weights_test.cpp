// SPDX-License-Identifier: MIT
// Matrices in the processor's own layout give the answers of those in the file.
#include <ggml-cpu.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/random_session.h"
#include "kvsieve/engine.h"

namespace kvsieve::test {
namespace {

using Logits = std::vector<float>;

ModelShape shape_of(ggml_type type) {
    ModelShape shape;
    shape.n_layer = 3;
    shape.n_embd = 256;
    shape.n_head = 4;
    shape.n_head_kv = 2;
    shape.head_dim = 64;
    shape.n_ff = 512;
    shape.type = type;
    return shape;
}

/// After a prompt, and after one token more.
std::vector<Logits> run(const TempFile & file, bool repack, const std::string & method, uint64_t & packed_bytes) {
    ModelOptions files;
    files.model = file.path();
    files.n_threads = 2;
    files.repack = repack;
    const auto model = Model::load(files);
    packed_bytes = model->info().packed_bytes;
    SessionOptions options;
    options.method = method;
    if (method != "full") {
        options.method_options.keep = 0.3;
    }
    Session session(model, options);
    std::vector<Logits> out;
    session.feed(random_tokens(150));
    out.emplace_back(session.logits().begin(), session.logits().end());
    session.feed(std::vector<int32_t>{7});
    out.emplace_back(session.logits().begin(), session.logits().end());
    return out;
}

double difference(const Logits & a, const Logits & b) {
    double most = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        most = std::max(most, static_cast<double>(std::abs(a[i] - b[i])));
    }
    const auto [low, high] = std::minmax_element(a.begin(), a.end());
    return most / static_cast<double>(*high - *low);
}

TEST(PackedWeights, GiveTheLogitsOfTheFile) {
    for (const ggml_type type : {GGML_TYPE_Q4_0, GGML_TYPE_Q8_0, GGML_TYPE_Q4_K, GGML_TYPE_Q6_K, GGML_TYPE_F16}) {
        const TempFile file(".gguf");
        write_model(shape_of(type), file.path());
        for (const char * method : {"full", "sieve"}) {  // sieve reads the output projections in the file
            uint64_t none = 0, packed = 0;
            const auto plain = run(file, false, method, none);
            const auto fast = run(file, true, method, packed);
            EXPECT_EQ(none, 0U);
            if (type == GGML_TYPE_F16 && ggml_cpu_has_amx_int8() == 0) {
                EXPECT_EQ(packed, 0U) << "f16 needs no other layout";
            }
            if (packed == 0) {
                EXPECT_TRUE(plain == fast);
            }
            if (type == GGML_TYPE_Q4_0 && ggml_cpu_has_avx2() != 0) {
                EXPECT_GT(packed, 0U);
            }
            for (size_t i = 0; i < plain.size(); ++i) {
                EXPECT_LE(difference(plain[i], fast[i]), 0.03)  // activations have 8 bits in both
                    << ggml_type_name(type) << ' ' << method << " step " << i;
            }
        }
    }
}

}  // namespace
}  // namespace kvsieve::test
