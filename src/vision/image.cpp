// SPDX-License-Identifier: MIT
#include "vision/image.h"

#include <mtmd-helper.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string_view>

#include "kvsieve/error.h"
#include "vision/image_header.h"
#include "vision/upstream_mtmd.h"

namespace kvsieve {
namespace {

// Formats that can be told by their first bytes. stb_image also guesses TGA from almost anything, so a text file
// could become an image.
struct Format {
    std::string_view name;
    std::string_view magic;
};
constexpr std::array<Format, 6> kFormats = {{{"PNG", "\x89PNG\r\n\x1a\n"},
                                             {"JPEG", "\xFF\xD8\xFF"},
                                             {"GIF", "GIF8"},
                                             {"BMP", "BM"},
                                             {"PNM", "P5"},
                                             {"PNM", "P6"}}};

[[noreturn]] void fail(const std::string & name, const std::string & what) {
    throw Error(ErrorCode::bad_input, name + " " + what);
}

const uint8_t * as_bytes(std::string_view text) {
    const void * data = text.data();
    return static_cast<const uint8_t *>(data);
}

std::string_view format_of(std::string_view bytes) {
    for (const Format & format : kFormats) {
        if (bytes.starts_with(format.magic)) {
            return format.name;
        }
    }
    return "";
}

void check_size(const std::string & name, int64_t width, int64_t height) {
    if (width < 1 || height < 1) {
        fail(name,
             "has " + std::to_string(width) + " x " + std::to_string(height) + " pixels, expected at least 1 x 1");
    }
    if (width > kMaxImageSide || height > kMaxImageSide || width * height > kMaxImagePixels) {
        throw Error(ErrorCode::too_large, name + " has " + std::to_string(width) + " x " + std::to_string(height) +
                                              " pixels, expected at most " + std::to_string(kMaxImageSide) +
                                              " on a side and " + std::to_string(kMaxImagePixels) + " in all");
    }
}

// stb_image fills the missing part of these with grey or black and reports no error.
void check_complete(const std::string & name, std::string_view format, std::string_view bytes) {
    if (format == "JPEG") {
        // The last end marker must stand behind the last scan: thumbnails inside have their own.
        const size_t scan = bytes.rfind("\xFF\xDA");
        const size_t end = bytes.rfind("\xFF\xD9");
        if (end == std::string_view::npos || (scan != std::string_view::npos && end < scan)) {
            fail(name, "is cut: the end marker of the JPEG is missing");
        }
    }
    if (format == "GIF" && bytes.substr(0, bytes.find_last_not_of('\0') + 1).back() != ';') {
        fail(name, "is cut: the end marker of the GIF is missing");
    }
    const uint64_t needed = format == "BMP" ? bmp_bytes({as_bytes(bytes), bytes.size()}) : 0;
    if (needed > bytes.size()) {
        fail(name, "is cut: its BMP header asks for " + std::to_string(needed) + " bytes, the file has " +
                       std::to_string(bytes.size()));
    }
}

}  // namespace

Image decode_image(std::span<const uint8_t> bytes, const std::string & name) {
    if (bytes.empty()) {
        fail(name, "is empty, expected an image");
    }
    if (bytes.size() > kMaxImageBytes) {
        throw Error(ErrorCode::too_large, name + " has " + std::to_string(bytes.size()) + " bytes, expected at most " +
                                              std::to_string(kMaxImageBytes));
    }
    const void * data = bytes.data();
    const std::string_view text(static_cast<const char *>(data), bytes.size());
    const std::string_view format = format_of(text);
    if (format.empty()) {
        fail(name, "is not an image that can be read, expected PNG, JPEG, GIF, BMP or PNM");
    }
    int width = 0;
    int height = 0;
    if (!read_image_header(bytes, width, height)) {
        fail(name, "is damaged: its " + std::string(format) + " header cannot be read");
    }
    check_size(name, width, height);
    check_complete(name, format, text);

    ensure_upstream_mtmd();
    // The context is asked for sound only, which the formats above exclude.
    const mtmd::bitmap_ptr bitmap(
        mtmd_helper_bitmap_init_from_buf(nullptr, bytes.data(), bytes.size(), false, mtmd_helper_init_opt_default())
            .bitmap);
    if (!bitmap) {
        fail(name, "cannot be decoded: its " + std::string(format) + " data are damaged or cut");
    }
    Image image;
    image.name = name;
    image.width = static_cast<int32_t>(mtmd_bitmap_get_nx(bitmap.get()));
    image.height = static_cast<int32_t>(mtmd_bitmap_get_ny(bitmap.get()));
    check_size(name, image.width, image.height);
    const unsigned char * rgb = mtmd_bitmap_get_data(bitmap.get());
    image.rgb.assign(rgb, rgb + mtmd_bitmap_get_n_bytes(bitmap.get()));
    image.id = mtmd_bitmap_get_id(bitmap.get());
    return image;
}

Image load_image(const std::filesystem::path & path) {
    std::error_code error;
    const auto status = std::filesystem::status(path, error);
    if (!std::filesystem::exists(status)) {
        fail(path.string(), "does not exist, expected an image");
    }
    if (!std::filesystem::is_regular_file(status)) {
        fail(path.string(), "is not a regular file, expected an image");
    }
    const uint64_t n = std::filesystem::file_size(path, error);
    if (n > kMaxImageBytes) {
        throw Error(ErrorCode::too_large, path.string() + " has " + std::to_string(n) + " bytes, expected at most " +
                                              std::to_string(kMaxImageBytes));
    }
    std::ifstream file(path, std::ios::binary);
    std::vector<char> bytes(static_cast<size_t>(n));
    if (!file || !file.read(bytes.data(), static_cast<std::streamsize>(n))) {
        fail(path.string(), std::string("cannot be read: ") + std::strerror(errno));
    }
    return decode_image({as_bytes({bytes.data(), bytes.size()}), bytes.size()}, path.string());
}

}  // namespace kvsieve
