// SPDX-License-Identifier: MIT
#include "io/atomic_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <stdexcept>

#include "io/scratch.h"

namespace kvsieve {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::read_bytes;
using test::Scratch;
using test::write_bytes;

TEST(AtomicFile, WritesAndReplaces) {
    const Scratch dir;
    atomic_write_file(dir / "a", std::string_view("one\0two", 7));
    EXPECT_EQ(read_bytes(dir / "a"), std::string("one\0two", 7));
    atomic_write_file(dir / "a", "");
    EXPECT_EQ(read_bytes(dir / "a"), "");
    EXPECT_EQ(dir.n_files(), 1U);
}

TEST(AtomicFile, PermissionsAreThoseOfAnyNewFile) {
    const Scratch dir;
    const mode_t mask = ::umask(022);
    atomic_write_file(dir / "a", "x");
    ::umask(mask);
    EXPECT_EQ(fs::status(dir / "a").permissions(), fs::perms(0644));
}

TEST(AtomicFile, AFailedWriterLeavesTheOldFileAndNothingElse) {
    const Scratch dir;
    write_bytes(dir / "a", "old");
    EXPECT_THROW(atomic_write_file(dir / "a",
                                   [](const fs::path & temporary) {
                                       write_bytes(temporary, "half");
                                       throw std::runtime_error("stopped");
                                   }),
                 std::runtime_error);
    EXPECT_EQ(read_bytes(dir / "a"), "old");
    EXPECT_EQ(dir.n_files(), 1U);
}

TEST(AtomicFile, TheFileIsNotThereBeforeItIsWhole) {
    const Scratch dir;
    atomic_write_file(dir / "a", [&](const fs::path & temporary) {
        write_bytes(temporary, "half");
        EXPECT_FALSE(fs::exists(dir / "a"));
        EXPECT_EQ(temporary.parent_path(), (dir / "a").parent_path());
    });
    EXPECT_EQ(read_bytes(dir / "a"), "half");
}

TEST(AtomicFile, PathsThatCannotBeWrittenAreNamed) {
    const Scratch dir;
    const auto sentence = [](const fs::path & path) {
        return error_of([&] { atomic_write_file(path, "x"); }, ErrorCode::io);
    };
    EXPECT_NE(sentence(dir / "no/a").find("no/a: No such file"), std::string::npos);
    EXPECT_NE(sentence(dir / "").find("folder"), std::string::npos);
    fs::create_directory(dir / "sub");
    EXPECT_NE(sentence(dir / "sub").find("folder"), std::string::npos);
    write_bytes(dir / "file", "x");
    EXPECT_NE(sentence(dir / "file/a").find("Not a directory"), std::string::npos);
    EXPECT_NE(sentence("/dev/null").find("not a regular file"), std::string::npos);
    EXPECT_NE(sentence(dir / std::string(300, 'n')).find("too long"), std::string::npos);
    EXPECT_NE(sentence("").find("cannot write"), std::string::npos);
}

TEST(AtomicFile, SymbolicLinksStayLinks) {
    const Scratch dir;
    write_bytes(dir / "target", "old");
    fs::create_symlink(dir / "target", dir / "link");
    atomic_write_file(dir / "link", "new");
    EXPECT_TRUE(fs::is_symlink(dir / "link"));
    EXPECT_EQ(read_bytes(dir / "target"), "new");
}

}  // namespace
}  // namespace kvsieve
