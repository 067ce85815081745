// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <utility>

#include "io/npz.h"
#include "io/zip_write.h"
#include "kvsieve/error.h"

namespace kvsieve {
namespace fs = std::filesystem;

struct NpzSpool::Array {
    std::string name;
    fs::path file;
    std::fstream stream;
    uint64_t data_offset = 0;  ///< bytes of the header
    uint64_t n_elements = 0;
    size_t element_size = 0;
};

NpzSpool::NpzSpool(fs::path path) : path_(std::move(path)) {
    std::string pattern = path_.string() + ".parts-XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr) {
        throw Error(ErrorCode::io, "cannot write " + path_.string() + ": no folder can be made beside it");
    }
    folder_ = pattern;
}

NpzSpool::~NpzSpool() {
    arrays_.clear();
    std::error_code ec;
    fs::remove_all(folder_, ec);
}

void NpzSpool::add(const std::string & name, NpyType type, const std::vector<uint64_t> & shape) {
    auto array = std::make_unique<Array>();
    array->name = name;
    array->file = folder_ / (std::to_string(arrays_.size()) + ".npy");
    array->element_size = npy_type_size(type);
    array->n_elements = 1;
    for (const uint64_t dim : shape) {
        array->n_elements *= dim;
    }
    const std::string header = make_npy_header(type, shape);
    array->data_offset = header.size();
    array->stream.open(array->file, std::ios::binary | std::ios::in | std::ios::out | std::ios::trunc);
    array->stream.write(header.data(), static_cast<std::streamsize>(header.size()));
    array->stream.flush();
    std::error_code ec;
    fs::resize_file(array->file, header.size() + array->n_elements * array->element_size, ec);
    if (!array->stream || ec) {
        throw Error(ErrorCode::io, "cannot write " + path_.string() + ": there is no room for array " + name);
    }
    arrays_.push_back(std::move(array));
}

void NpzSpool::write(const std::string & name, uint64_t first, std::span<const std::byte> data) {
    const auto found =
        std::find_if(arrays_.begin(), arrays_.end(), [&](const auto & array) { return array->name == name; });
    if (found == arrays_.end()) {
        throw Error(ErrorCode::invalid_argument, path_.string() + " has no array " + name + " to write to");
    }
    Array & array = **found;
    const uint64_t n = data.size() / array.element_size;
    if (data.size() % array.element_size != 0 || first > array.n_elements || n > array.n_elements - first) {
        throw Error(ErrorCode::invalid_argument, "array " + name + " of " + path_.string() + " has " +
                                                     std::to_string(array.n_elements) + " elements; got " +
                                                     std::to_string(data.size()) + " bytes from element " +
                                                     std::to_string(first) + " on");
    }
    array.stream.seekp(static_cast<std::streamoff>(array.data_offset + first * array.element_size));
    const void * const bytes = data.data();
    array.stream.write(static_cast<const char *>(bytes), static_cast<std::streamsize>(data.size()));
    if (!array.stream) {
        throw Error(ErrorCode::io, "cannot write " + path_.string() + ": there is no room for array " + name);
    }
}

void NpzSpool::finish() {
    if (arrays_.empty()) {
        throw Error(ErrorCode::invalid_argument, path_.string() + " would hold no array; expected at least one");
    }
    for (const auto & array : arrays_) {
        array->stream.close();
        if (!array->stream) {
            throw Error(ErrorCode::io, "cannot write " + path_.string() + ": array " + array->name + " is incomplete");
        }
    }
    write_zip(path_, [&](zip_t * zip) {
        for (const auto & array : arrays_) {
            add_npy_entry(zip, path_, array->name, zip_source_file(zip, array->file.c_str(), 0, -1));
        }
    });
}

}  // namespace kvsieve
