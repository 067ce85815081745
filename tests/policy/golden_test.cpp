// SPDX-License-Identifier: MIT
// Every golden case of every method: lists exactly, numbers within 1e-5.
#include "policy/golden.h"

#include <map>

namespace kvsieve {
namespace {

/// Cases under another name than the method's.
const std::map<std::string, std::string> kOtherNames = {{"prefixkv_offline", "prefixkv"},
                                                        {"mixkv_redundancy", "mixkv"}};
/// Parts of the expectation that only inform: they depend on the last bits of sums.
const std::vector<std::string> kInformative = {"threshold", "iterations"};

class Golden : public testing::TestWithParam<std::string> {};

TEST_P(Golden, PositionsCountsAndNumbers) {
    const std::string & method = GetParam();
    int n = test::check_golden_entries(method, method, kInformative);
    for (const auto & [name, of] : kOtherNames) {
        n += of == method ? test::check_golden_entries(name, method, kInformative) : 0;
    }
    const bool baseline = method == "full" || method == "random";
    EXPECT_EQ(n == 0, baseline) << n << " cases";
}

std::vector<std::string> method_names() {
    std::vector<std::string> out;
    for (const MethodInfo & info : methods()) {
        out.emplace_back(info.name);
    }
    return out;
}

INSTANTIATE_TEST_SUITE_P(Methods, Golden, testing::ValuesIn(method_names()),
                         [](const auto & test) { return test.param; });

TEST(GoldenFiles, EveryCaseBelongsToAMethod) {
    const std::vector<std::string> names = method_names();
    std::map<std::string, int> n_cases;
    for (const std::string & file : test::golden_names()) {
        const nlohmann::json golden = test::read_golden(file);
        for (const auto & entry : golden.at("entries")) {
            ++n_cases[entry.at("method").get<std::string>()];
        }
    }
    int total = 0;
    for (const auto & [name, n] : n_cases) {
        const auto other = kOtherNames.find(name);
        const std::string & method = other == kOtherNames.end() ? name : other->second;
        EXPECT_NE(std::find(names.begin(), names.end(), method), names.end()) << name;
        total += n;
    }
    EXPECT_GE(total, 1223);
}

}  // namespace
}  // namespace kvsieve
