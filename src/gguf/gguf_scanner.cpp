// SPDX-License-Identifier: MIT
#include "gguf/gguf_scanner.h"

#include <gguf.h>

#include <algorithm>
#include <bit>
#include <limits>

#include "kvsieve/error.h"

namespace kvsieve {
namespace {

// ggml asserts this alignment when it takes memory from outside.
constexpr uint64_t kMinAlignment = 32;
constexpr uint64_t kMaxElements = uint64_t{1} << 30U;  // upstream's limit for texts and arrays
// Smallest encodings: empty name + type + 1 byte; name + n_dims + type + offset.
constexpr uint64_t kMinValueBytes = 8 + 1 + 4 + 1;
constexpr uint64_t kMinTensorBytes = 8 + 4 + 4 + 8;

std::string in_quotes(std::string_view text) {
    std::string out(1, '\'');  // GCC 12 warns wrongly about "'" + temporary
    out += printable(text);
    out += '\'';
    return out;
}

std::string shape_text(const GgufTensor & tensor) {
    std::string text(1, '[');
    text += std::to_string(tensor.ne[0]);
    for (size_t i = 1; i < tensor.ne.size(); ++i) {
        text += ", ";
        text += std::to_string(tensor.ne[i]);
    }
    text += ']';
    return text;
}

}  // namespace

size_t gguf_element_bytes(uint32_t type) {
    switch (type) {
        case GGUF_TYPE_UINT8:
        case GGUF_TYPE_INT8:
        case GGUF_TYPE_BOOL:
            return 1;
        case GGUF_TYPE_UINT16:
        case GGUF_TYPE_INT16:
            return 2;
        case GGUF_TYPE_UINT32:
        case GGUF_TYPE_INT32:
        case GGUF_TYPE_FLOAT32:
            return 4;
        case GGUF_TYPE_UINT64:
        case GGUF_TYPE_INT64:
        case GGUF_TYPE_FLOAT64:
            return 8;
        default:
            return 0;
    }
}

std::string gguf_element_name(uint32_t type) {
    if (type >= GGUF_TYPE_COUNT) {
        return "type " + std::to_string(type);
    }
    return gguf_type_name(static_cast<gguf_type>(type));
}

std::string printable(std::string_view text) {
    constexpr size_t kMost = 80;
    std::string out;
    for (const char c : text.substr(0, kMost)) {
        out += c >= ' ' && c <= '~' ? c : '?';
    }
    return text.size() > kMost ? out + "..." : out;
}

void GgufScanner::fail(const std::string & what) const {
    throw Error(ErrorCode::bad_input, file_.path_.string() + " " + what);
}

void GgufScanner::need(uint64_t n, const std::string & what) const {
    if (n > file_.size_ - at_) {
        fail("is cut: " + what + " needs " + std::to_string(n) + " bytes from byte " + std::to_string(at_) +
             " on, the file has " + std::to_string(file_.size_));
    }
}

template <typename T>
T GgufScanner::read(const std::string & what) {
    need(sizeof(T), what);
    const T value = read_at<T>(file_.base_, at_);
    at_ += sizeof(T);
    return value;
}

std::string_view GgufScanner::read_text(const std::string & what) {
    const auto n = read<uint64_t>(what);
    if (n > kMaxElements) {
        fail("is damaged: " + what + " is said to have " + std::to_string(n) + " bytes");
    }
    need(n, what);
    const void * text = file_.base_ + at_;
    at_ += n;
    return {static_cast<const char *>(text), static_cast<size_t>(n)};
}

void GgufScanner::read_header() {
    need(4, "the magic");
    if (std::memcmp(file_.base_, "GGUF", 4) != 0) {
        const void * magic = file_.base_;
        fail("is not a GGUF file: it starts with " + in_quotes({static_cast<const char *>(magic), 4}) +
             ", expected 'GGUF'");
    }
    at_ = 4;
    const auto version = read<uint32_t>("the version");
    if ((version & 0xFFFFU) == 0 && version != 0) {
        fail("is a big-endian GGUF file, expected a little-endian one");
    }
    if (version < 2 || version > GGUF_VERSION) {
        fail("is GGUF version " + std::to_string(version) + ", expected 2 or 3");
    }
    n_tensor_ = read<uint64_t>("the number of tensors");
    n_value_ = read<uint64_t>("the number of keys");
    const uint64_t rest = file_.size_ - at_;
    if (n_tensor_ > rest / kMinTensorBytes) {
        fail("is cut or damaged: it says it has " + std::to_string(n_tensor_) + " tensors, which " +
             std::to_string(file_.size_) + " bytes cannot hold");
    }
    if (n_value_ > rest / kMinValueBytes) {
        fail("is cut or damaged: it says it has " + std::to_string(n_value_) + " keys, which " +
             std::to_string(file_.size_) + " bytes cannot hold");
    }
}

void GgufScanner::read_array(const std::string & key, GgufFile::Value & value) {
    value.is_array = true;
    value.type = read<uint32_t>("the element type of " + in_quotes(key));
    value.n = read<uint64_t>("the length of " + in_quotes(key));
    value.at = at_;
    if (value.n > kMaxElements) {
        fail("is damaged: array " + in_quotes(key) + " is said to have " + std::to_string(value.n) + " elements");
    }
    if (value.type == GGUF_TYPE_STRING) {
        need(value.n * sizeof(uint64_t), "array " + in_quotes(key));
        const std::string what = "a text of " + in_quotes(key);
        for (uint64_t i = 0; i < value.n; ++i) {
            (void)read_text(what);
        }
        return;
    }
    const size_t bytes = gguf_element_bytes(value.type);
    if (bytes == 0) {
        fail("is damaged: array " + in_quotes(key) + " has elements of " + gguf_element_name(value.type));
    }
    need(value.n * bytes, "array " + in_quotes(key));
    at_ += value.n * bytes;
}

void GgufScanner::read_value(uint64_t index) {
    const std::string key{read_text("the name of key " + std::to_string(index))};
    if (key.empty()) {
        fail("is damaged: key " + std::to_string(index) + " has no name");
    }
    GgufFile::Value value;
    value.type = read<uint32_t>("the type of " + in_quotes(key));
    value.at = at_;
    if (value.type == GGUF_TYPE_ARRAY) {
        read_array(key, value);
    } else if (value.type == GGUF_TYPE_STRING) {
        (void)read_text("the text of " + in_quotes(key));
    } else {
        const size_t bytes = gguf_element_bytes(value.type);
        if (bytes == 0) {
            fail("is damaged: key " + in_quotes(key) + " has " + gguf_element_name(value.type));
        }
        need(bytes, "the value of " + in_quotes(key));
        at_ += bytes;
    }
    if (!file_.values_.emplace(key, value).second) {
        fail("is damaged: key " + in_quotes(key) + " stands in it twice");
    }
}

void GgufScanner::read_tensor(uint64_t index) {
    GgufTensor tensor;
    tensor.name = read_text("the name of tensor " + std::to_string(index));
    if (tensor.name.empty() || tensor.name.size() >= GGML_MAX_NAME || tensor.name.find('\0') != std::string::npos) {
        fail("is damaged: the name of tensor " + std::to_string(index) + " has " + std::to_string(tensor.name.size()) +
             " bytes, expected 1 to " + std::to_string(GGML_MAX_NAME - 1) + " and no zero byte");
    }
    const std::string what = "tensor " + in_quotes(tensor.name);
    const auto n_dims = read<uint32_t>("the number of dimensions of " + what);
    if (n_dims > tensor.ne.size()) {
        fail("is damaged: " + what + " has " + std::to_string(n_dims) + " dimensions, expected at most 4");
    }
    for (uint32_t i = 0; i < n_dims; ++i) {
        tensor.ne[i] = read<int64_t>("the shape of " + what);
    }
    const auto type = read<uint32_t>("the type of " + what);
    tensor.type = static_cast<ggml_type>(type);
    if (type >= GGML_TYPE_COUNT || ggml_blck_size(tensor.type) == 0) {
        fail("is damaged or too new: " + what + " has the unknown type " + std::to_string(type));
    }
    // Everything below 2^63 / type size, so that no later product of dimensions and strides overflows.
    const int64_t block = ggml_blck_size(tensor.type);
    const auto limit = std::numeric_limits<int64_t>::max() / static_cast<int64_t>(ggml_type_size(tensor.type));
    int64_t n = 1;
    for (const int64_t ne : tensor.ne) {
        if (ne <= 0 || ne > limit / n) {
            fail("is damaged: " + what + " has the shape " + shape_text(tensor));
        }
        n *= ne;
    }
    if (tensor.ne[0] % block != 0) {
        fail("is damaged: " + what + " has rows of " + std::to_string(tensor.ne[0]) +
             " elements, expected a multiple of " + std::to_string(block) + " for " + ggml_type_name(tensor.type));
    }
    tensor.nbytes = static_cast<size_t>(n / block) * ggml_type_size(tensor.type);
    tensor.offset = read<uint64_t>("the place of " + what);
    if (!file_.tensor_index_.emplace(tensor.name, file_.tensors_.size()).second) {
        fail("is damaged: " + what + " stands in it twice");
    }
    file_.tensors_.push_back(std::move(tensor));
}

// Offsets in the file are relative to the data section. Upstream wants the tensors packed in the order of their
// infos, each padded to the alignment.
void GgufScanner::place_tensors(uint64_t alignment) {
    const auto pad = [alignment](uint64_t n) { return (n + alignment - 1) / alignment * alignment; };
    file_.data_start_ = pad(at_);
    uint64_t expected = 0;
    for (GgufTensor & tensor : file_.tensors_) {
        if (tensor.offset != expected) {
            fail("is damaged: tensor " + in_quotes(tensor.name) + " is said to start at byte " +
                 std::to_string(tensor.offset) + " of the data, expected " + std::to_string(expected));
        }
        const uint64_t begin = file_.data_start_ + expected;
        if (begin > file_.size_ || tensor.nbytes > file_.size_ - begin) {
            fail("is cut: tensor " + in_quotes(tensor.name) + " needs bytes " + std::to_string(begin) + ".." +
                 std::to_string(begin + tensor.nbytes) + ", the file has " + std::to_string(file_.size_));
        }
        expected += pad(tensor.nbytes);
        tensor.offset = begin;
        tensor.data = file_.base_ + begin;
    }
}

void GgufScanner::scan() {
    read_header();
    for (uint64_t i = 0; i < n_value_; ++i) {
        read_value(i);
    }
    uint64_t alignment = GGUF_DEFAULT_ALIGNMENT;
    if (const auto found = file_.values_.find(GGUF_KEY_GENERAL_ALIGNMENT); found != file_.values_.end()) {
        if (found->second.is_array || found->second.type != GGUF_TYPE_UINT32) {
            fail("is damaged: key 'general.alignment' is " + file_.type_of(GGUF_KEY_GENERAL_ALIGNMENT) +
                 ", expected u32");
        }
        alignment = read_at<uint32_t>(file_.base_, found->second.at);
    }
    if (!std::has_single_bit(alignment) || alignment < kMinAlignment) {
        fail("has an alignment of " + std::to_string(alignment) + ", expected a power of two from " +
             std::to_string(kMinAlignment) + " on");
    }
    file_.tensors_.reserve(static_cast<size_t>(n_tensor_));
    for (uint64_t i = 0; i < n_tensor_; ++i) {
        read_tensor(i);
    }
    place_tensors(alignment);
    if (const uint32_t parts = file_.get_u32("split.count", 1); parts > 1) {
        fail("is one of " + std::to_string(parts) +
             " parts, expected a whole model; join them with llama-gguf-split --merge");
    }
}

}  // namespace kvsieve
