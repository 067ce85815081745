// SPDX-License-Identifier: MIT
#include "io/profile.h"

#include <gtest/gtest.h>

#include "io/scratch.h"

namespace kvsieve {
namespace {

using test::error_of;
using test::Scratch;
using test::write_bytes;

Profile read_text(const Scratch & dir, const std::string & text) {
    write_bytes(dir / "p.json", text);
    return read_profile(dir / "p.json");
}

TEST(Profile, PublishedListsAreRead) {
    const Scratch dir;
    const Profile p = read_text(dir, "[0.5, 0.25, 0]\n");
    EXPECT_EQ(p.forget, (std::vector<double>{0.5, 0.25, 0}));
    EXPECT_EQ(p.method, "prefixkv");
    EXPECT_TRUE(p.model_fingerprint.empty());
}

TEST(Profile, WrittenProfilesAreReadBackExactly) {
    const Scratch dir;
    const Profile p = {.forget = {0.1, 1.0 / 3, 0.999999999999}, .model_fingerprint = "abc", .method = "prefixkv"};
    write_profile(dir / "p.json", p);
    const Profile q = read_profile(dir / "p.json");
    EXPECT_EQ(q.forget, p.forget);
    EXPECT_EQ(q.model_fingerprint, "abc");
    EXPECT_EQ(q.method, "prefixkv");
    EXPECT_EQ(dir.n_files(), 1U);
    (void)error_of([&] { write_profile(dir / "no/p.json", p); }, ErrorCode::io);
}

TEST(Profile, WhatDoesNotFitIsRefusedWithOneSentence) {
    const Scratch dir;
    const std::vector<std::pair<std::string, std::string>> bad = {
        {"", "not JSON"},
        {"[0.5,", "not JSON"},
        {"[]", "expected a list"},
        {"3", "expected a list"},
        {"null", "expected a list"},
        {"[0.5, \"x\"]", "layer 1 is not a number"},
        {"[0.5, null]", "layer 1 is not a number"},
        {"[0.5, 1]", "layer 1 forgets 1"},
        {"[-0.1]", "layer 0 forgets -0.1"},
        {"[1e999]", "not JSON"},
        {"{}", "kvsieve_profile is absent"},
        {"{\"kvsieve_profile\": 2, \"forget\": [0.5]}", "kvsieve_profile is 2; expected 1"},
        {"{\"kvsieve_profile\": 1}", "forget is absent"},
        {"{\"kvsieve_profile\": 1, \"forget\": 0.5}", "expected a list"},
        {"{\"kvsieve_profile\": 1, \"forget\": [0.5], \"method\": 4}", "method is not a word"},
        {std::string(200000, '['), "not JSON"},
        {std::string(2U << 20U, ' '), "expected at most"},
    };
    for (const auto & [text, word] : bad) {
        const std::string sentence = error_of([&] { (void)read_text(dir, text); });
        EXPECT_NE(sentence.find(word), std::string::npos) << text.substr(0, 80) << ": " << sentence;
        EXPECT_NE(sentence.find("p.json"), std::string::npos) << sentence;
    }
    EXPECT_NE(error_of([&] { (void)read_profile(dir / "absent.json"); }).find("no such file"), std::string::npos);
    EXPECT_NE(error_of([&] { (void)read_profile(dir / ""); }).find("not a file"), std::string::npos);
}

}  // namespace
}  // namespace kvsieve
