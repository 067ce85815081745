// SPDX-License-Identifier: MIT
#include "eval/unicode.h"

#include <clocale>
#include <cwctype>

#include "kvsieve/error.h"

namespace kvsieve {
namespace {

constexpr char32_t kReplacement = 0xFFFD;

/// A locale with Unicode's case tables, independent of the user's one.
locale_t unicode_locale() {
    static const locale_t locale = [] {
        for (const char * name : {"C.UTF-8", "en_US.UTF-8"}) {
            if (const locale_t found = newlocale(LC_CTYPE_MASK, name, nullptr)) {
                return found;
            }
        }
        throw Error(ErrorCode::runtime, "the C library has neither the locale C.UTF-8 nor en_US.UTF-8");
    }();
    return locale;
}

}  // namespace

std::u32string decode_utf8(std::string_view text) {
    std::u32string out;
    out.reserve(text.size());
    for (size_t i = 0; i < text.size();) {
        const auto lead = static_cast<unsigned char>(text[i]);
        const size_t n = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
        char32_t c = n == 1 ? lead : lead & (0x7FU >> n);
        bool valid = n > 0 && i + n <= text.size();
        for (size_t k = 1; valid && k < n; ++k) {
            const auto next = static_cast<unsigned char>(text[i + k]);
            valid = (next & 0xC0U) == 0x80U;
            c = (c << 6U) | (next & 0x3FU);
        }
        // overlong forms, surrogates, beyond Unicode
        constexpr char32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
        valid = valid && c >= kLeast[n] && c <= 0x10FFFF && (c < 0xD800 || c > 0xDFFF);
        out.push_back(valid ? c : kReplacement);
        i += valid ? n : 1;
    }
    return out;
}

bool is_python_space(char32_t c) noexcept {
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

std::u32string_view strip(std::u32string_view text) noexcept {
    while (!text.empty() && is_python_space(text.front())) {
        text.remove_prefix(1);
    }
    while (!text.empty() && is_python_space(text.back())) {
        text.remove_suffix(1);
    }
    return text;
}

std::u32string to_lower(std::u32string_view text) {
    const locale_t locale = unicode_locale();
    std::u32string out(text);
    for (char32_t & c : out) {
        c = static_cast<char32_t>(towlower_l(static_cast<wint_t>(c), locale));
    }
    return out;
}

}  // namespace kvsieve
