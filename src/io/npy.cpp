// SPDX-License-Identifier: MIT
#include "io/npy.h"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <limits>

#include "kvsieve/error.h"

namespace kvsieve {
namespace {

struct TypeRow {
    NpyType type;
    std::string_view descr;
    std::string_view name;
    size_t size;
};
constexpr std::array<TypeRow, 7> kTypes = {{
    {NpyType::f2, "<f2", "float16", 2},
    {NpyType::f4, "<f4", "float32", 4},
    {NpyType::f8, "<f8", "float64", 8},
    {NpyType::i4, "<i4", "int32", 4},
    {NpyType::i8, "<i8", "int64", 8},
    {NpyType::u1, "|u1", "uint8", 1},
    {NpyType::b1, "|b1", "bool", 1},
}};

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr size_t kMaxDims = 8;

const TypeRow & row_of(NpyType type) {
    return kTypes[static_cast<size_t>(type)];
}

/// Reads the Python dictionary of a header: {'descr': '<f4', 'fortran_order': False, 'shape': (4, 48), }.
class HeaderParser {
  public:
    HeaderParser(std::string_view text, const std::string & what) : text_(text), what_(what) {}

    NpyHeader parse() {
        std::optional<std::string_view> descr;
        std::optional<bool> fortran;
        std::optional<std::vector<uint64_t>> shape;
        expect('{');
        while (!accept('}')) {
            const std::string_view key = quoted();
            expect(':');
            if (key == "descr") {
                descr = quoted();
            } else if (key == "fortran_order") {
                fortran = boolean();
            } else if (key == "shape") {
                shape = tuple();
            } else {
                fail("its header has the unknown key '" + std::string(key) + "'");
            }
            if (!accept(',')) {
                expect('}');
                break;
            }
        }
        skip_space();
        if (pos_ != text_.size() || !descr || !fortran || !shape) {
            fail("its header is not a dictionary of descr, fortran_order and shape");
        }
        if (*fortran) {
            fail("it is in Fortran order; expected C order");
        }
        NpyHeader out;
        const auto row =
            std::find_if(kTypes.begin(), kTypes.end(), [&](const TypeRow & r) { return r.descr == *descr; });
        if (row == kTypes.end()) {
            fail("its type is '" + std::string(*descr) + "'; expected one of <f2, <f4, <f8, <i4, <i8, |u1, |b1");
        }
        out.type = row->type;
        out.shape = std::move(*shape);
        out.n_elements = count(out.shape, row->size);
        return out;
    }

  private:
    [[noreturn]] void fail(const std::string & why) const { throw Error(ErrorCode::bad_input, what_ + ": " + why); }

    void skip_space() {
        while (pos_ < text_.size() && (text_[pos_] == ' ' || text_[pos_] == '\n')) {
            ++pos_;
        }
    }

    bool accept(char c) {
        skip_space();
        if (pos_ < text_.size() && text_[pos_] == c) {
            ++pos_;
            return true;
        }
        return false;
    }

    void expect(char c) {
        if (!accept(c)) {
            fail(std::string("its header is damaged (expected '") + c + "' at byte " + std::to_string(pos_) + ")");
        }
    }

    std::string_view quoted() {
        const char quote = accept('"') ? '"' : '\'';
        if (quote == '\'') {
            expect('\'');
        }
        const size_t end = text_.find(quote, pos_);
        if (end == std::string_view::npos) {
            fail("its header is damaged (a word without end)");
        }
        const std::string_view word = text_.substr(pos_, end - pos_);
        pos_ = end + 1;
        return word;
    }

    bool boolean() {
        skip_space();
        for (const auto & [word, value] : {std::pair<std::string_view, bool>{"False", false}, {"True", true}}) {
            if (text_.substr(pos_).starts_with(word)) {
                pos_ += word.size();
                return value;
            }
        }
        fail("its header is damaged (fortran_order is neither True nor False)");
    }

    std::vector<uint64_t> tuple() {
        std::vector<uint64_t> out;
        expect('(');
        while (!accept(')')) {
            skip_space();
            uint64_t n = 0;
            const auto [rest, ec] = std::from_chars(text_.data() + pos_, text_.data() + text_.size(), n);
            if (ec != std::errc()) {
                fail("its header is damaged (a dimension is not a number)");
            }
            pos_ = static_cast<size_t>(rest - text_.data());
            out.push_back(n);
            if (out.size() > kMaxDims) {
                fail("it has more than " + std::to_string(kMaxDims) + " dimensions");
            }
            if (!accept(',')) {
                expect(')');
                break;
            }
        }
        return out;
    }

    uint64_t count(std::span<const uint64_t> shape, size_t element_size) const {
        uint64_t n = 1;
        const uint64_t limit = static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) / element_size;
        for (const uint64_t dim : shape) {
            if (dim != 0 && n > limit / dim) {
                fail("its shape " + shape_text(shape) + " is larger than any file");
            }
            n *= dim;
        }
        return n;
    }

    std::string_view text_;
    const std::string & what_;
    size_t pos_ = 0;
};

}  // namespace

std::string_view npy_type_name(NpyType type) noexcept {
    return row_of(type).name;
}
size_t npy_type_size(NpyType type) noexcept {
    return row_of(type).size;
}

std::string shape_text(std::span<const uint64_t> shape) {
    std::string out = "[";
    for (size_t i = 0; i < shape.size(); ++i) {
        out += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
    }
    return out + "]";
}

NpyHeader parse_npy_header(std::span<const uint8_t> start, const std::string & what) {
    const std::string text(start.begin(), start.end());
    // Magic (6), version (2), header length (2 bytes in version 1, else 4), header.
    if (text.size() < 10 || !text.starts_with(kMagic)) {
        throw Error(ErrorCode::bad_input, what + ": it does not start as a .npy array does");
    }
    const unsigned major = start[6];
    const size_t prefix = major == 1 ? 10 : 12;
    if (major < 1 || major > 3 || text.size() < prefix) {
        throw Error(ErrorCode::bad_input,
                    what + ": its .npy version is " + std::to_string(major) + "; expected 1 to 3");
    }
    uint64_t length = start[8] | static_cast<uint64_t>(start[9]) << 8U;
    if (major > 1) {
        length |= static_cast<uint64_t>(start[10]) << 16U | static_cast<uint64_t>(start[11]) << 24U;
    }
    if (length > text.size() - prefix) {
        throw Error(ErrorCode::bad_input, what + ": its header of " + std::to_string(length) +
                                              " bytes is cut or longer than " + std::to_string(kMaxNpyHeader));
    }
    NpyHeader out = HeaderParser(std::string_view(text).substr(prefix, length), what).parse();
    out.data_offset = prefix + length;
    return out;
}

std::string make_npy_header(NpyType type, std::span<const uint64_t> shape) {
    std::string dims;
    for (const uint64_t dim : shape) {
        dims += std::to_string(dim) + ", ";
    }
    if (shape.size() > 1) {
        dims.resize(dims.size() - 2);
    } else if (shape.size() == 1) {
        dims.pop_back();  // (48,) is a tuple, (48) is not
    }
    std::string text =
        "{'descr': '" + std::string(row_of(type).descr) + "', 'fortran_order': False, 'shape': (" + dims + "), }";
    constexpr size_t kPrefix = 10, kAlign = 64;
    text.append(kAlign - 1 - (kPrefix + text.size()) % kAlign, ' ');
    text += '\n';
    std::string out(kMagic);
    out += {'\1', '\0', static_cast<char>(text.size() & 0xffU), static_cast<char>(text.size() >> 8U)};
    return out + text;
}

float half_to_float(uint16_t bits) noexcept {
    const uint32_t sign = (bits & 0x8000U) << 16U;
    const uint32_t exponent = (bits >> 10U) & 0x1fU;
    const uint32_t mantissa = bits & 0x3ffU;
    if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24
        const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
        return sign != 0 ? -magnitude : magnitude;
    }
    const uint32_t wide = exponent == 0x1fU ? 0xffU : exponent + 112;
    return std::bit_cast<float>(sign | wide << 23U | mantissa << 13U);
}

}  // namespace kvsieve
