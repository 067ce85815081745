// SPDX-License-Identifier: MIT
// A folder of a test's own, and files in it.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "io/npz.h"
#include "kvsieve/error.h"

namespace kvsieve::test {

class Scratch {
  public:
    Scratch() {
        const auto * info = testing::UnitTest::GetInstance()->current_test_info();
        dir_ = std::filesystem::temp_directory_path() / ("kvsieve_" + std::string(info->test_suite_name()) + "_" +
                                                         info->name() + "_" + std::to_string(::getpid()));
        std::filesystem::create_directories(dir_);
    }
    ~Scratch() {
        std::error_code ec;
        std::filesystem::remove_all(dir_, ec);
    }
    Scratch(const Scratch &) = delete;
    Scratch & operator=(const Scratch &) = delete;

    [[nodiscard]] std::filesystem::path operator/(const std::string & name) const { return dir_ / name; }
    [[nodiscard]] size_t n_files() const {
        return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(dir_), {}));
    }

  private:
    std::filesystem::path dir_;
};

inline std::string read_bytes(const std::filesystem::path & path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

inline void write_bytes(const std::filesystem::path & path, std::string_view bytes) {
    std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

/// The sentence and the code of the Error that the call throws; fails the test if it throws none.
template <typename Call>
std::string error_of(Call call, ErrorCode code = ErrorCode::bad_input) {
    try {
        call();
    } catch (const Error & e) {
        EXPECT_EQ(e.code(), code) << e.what();
        EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
        return e.what();
    }
    ADD_FAILURE() << "expected an Error";
    return {};
}

template <typename T>
NpzArray npz_array(const std::string & name, NpyType type, std::vector<uint64_t> shape, const std::vector<T> & data) {
    return {.name = name, .type = type, .shape = std::move(shape), .data = std::as_bytes(std::span(data))};
}

}  // namespace kvsieve::test
