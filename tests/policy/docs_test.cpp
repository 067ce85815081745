// SPDX-License-Identifier: MIT
// docs/methods.md says what the registry says.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "kvsieve/policy.h"
#include "policy/markdown.h"

namespace kvsieve {
namespace {

std::string methods_page() {
    std::ifstream in(std::filesystem::path(KVSIEVE_TEST_DATA) / ".." / ".." / "docs" / "methods.md", std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

TEST(MethodsPage, TablesAreThoseOfTheRegistry) {
    const std::string page = methods_page(), begin = "<!-- methods: begin -->\n", end = "<!-- methods: end -->";
    const size_t from = page.find(begin), to = page.find(end);
    ASSERT_NE(from, std::string::npos);
    ASSERT_NE(to, std::string::npos);
    EXPECT_EQ(page.substr(from + begin.size(), to - from - begin.size()), methods_markdown())
        << "replace what stands between the two comments by the output of: kvsieve methods --markdown";
}

TEST(MethodsPage, EveryMethodHasItsSection) {
    const std::string page = methods_page();
    for (const MethodInfo & info : methods()) {
        EXPECT_NE(page.find("\n## " + std::string(info.section) + "\n"), std::string::npos) << info.name;
        for (const ParamSpec & spec : info.params) {
            EXPECT_NE(page.find("`" + spec.name + "`"), std::string::npos) << info.name << " " << spec.name;
        }
    }
}

}  // namespace
}  // namespace kvsieve
