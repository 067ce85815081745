// SPDX-License-Identifier: MIT
#include "io/profile.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "io/atomic_file.h"
#include "kvsieve/error.h"
#include "policy/number.h"

namespace kvsieve {
namespace fs = std::filesystem;
namespace {

constexpr uint64_t kMaxProfileBytes = uint64_t{1} << 20U;
constexpr int kVersion = 1;

[[noreturn]] void fail(const fs::path & path, const std::string & why) {
    throw Error(ErrorCode::bad_input, "profile " + path.string() + ": " + why);
}

std::string read_text(const fs::path & path) {
    std::error_code ec;
    if (!fs::is_regular_file(path, ec)) {
        fail(path, fs::exists(path, ec) ? "it is not a file" : "there is no such file");
    }
    if (const auto size = fs::file_size(path, ec); size > kMaxProfileBytes) {
        fail(path, "it has " + std::to_string(size) + " bytes; expected at most " + std::to_string(kMaxProfileBytes));
    }
    std::ifstream in(path, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    if (!in) {
        fail(path, "it cannot be read");
    }
    return text;
}

std::vector<double> forget_of(const fs::path & path, const nlohmann::json & list) {
    if (!list.is_array() || list.empty()) {
        fail(path, "expected a list with the forgotten fraction of every layer");
    }
    std::vector<double> out;
    for (const auto & value : list) {
        const std::string where = "layer " + std::to_string(out.size());
        if (!value.is_number()) {
            fail(path, where + " is not a number; expected a forgotten fraction in [0, 1)");
        }
        const auto f = value.get<double>();
        if (!(f >= 0 && f < 1)) {
            fail(path, where + " forgets " + number_text(f) + "; expected a number in [0, 1)");
        }
        out.push_back(f);
    }
    return out;
}

std::string word_of(const fs::path & path, const nlohmann::json & object, const char * key) {
    const auto found = object.find(key);
    if (found == object.end()) {
        return {};
    }
    if (!found->is_string()) {
        fail(path, std::string(key) + " is not a word");
    }
    return found->get<std::string>();
}

}  // namespace

Profile read_profile(const fs::path & path) {
    const auto json = nlohmann::json::parse(read_text(path), nullptr, /*allow_exceptions=*/false);
    if (json.is_discarded()) {
        fail(path, "it is not JSON; expected a list of forgotten fractions or a kvsieve profile");
    }
    Profile profile;
    if (!json.is_object()) {
        profile.forget = forget_of(path, json);
        return profile;
    }
    const auto version = json.find("kvsieve_profile");
    if (version == json.end() || *version != kVersion) {
        fail(path, "kvsieve_profile is " + (version == json.end() ? std::string("absent") : version->dump()) +
                       "; expected " + std::to_string(kVersion));
    }
    if (!json.contains("forget")) {
        fail(path, "forget is absent; expected a list with the forgotten fraction of every layer");
    }
    profile.forget = forget_of(path, json["forget"]);
    profile.model_fingerprint = word_of(path, json, "model_fingerprint");
    if (const std::string method = word_of(path, json, "method"); !method.empty()) {
        profile.method = method;
    }
    return profile;
}

void write_profile(const fs::path & path, const Profile & profile) {
    const nlohmann::ordered_json json = {{"kvsieve_profile", kVersion},
                                         {"method", profile.method},
                                         {"model_fingerprint", profile.model_fingerprint},
                                         {"forget", profile.forget}};
    atomic_write_file(path, json.dump() + "\n");
}

}  // namespace kvsieve
