// SPDX-License-Identifier: MIT
#include "io/zip_write.h"

#include "io/atomic_file.h"
#include "kvsieve/error.h"

namespace kvsieve {
namespace fs = std::filesystem;
namespace {

[[noreturn]] void fail_write(const fs::path & path, const std::string & why) {
    throw Error(ErrorCode::io, "cannot write " + path.string() + ": " + why);
}

}  // namespace

std::string zip_error_text(int code) {
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    std::string text = zip_error_strerror(&error);
    zip_error_fini(&error);
    return text;
}

void write_zip(const fs::path & path, const std::function<void(zip_t * zip)> & fill) {
    atomic_write_file(path, [&](const fs::path & temporary) {
        int code = 0;
        Zip zip(zip_open(temporary.c_str(), ZIP_CREATE | ZIP_TRUNCATE, &code));
        if (!zip) {
            fail_write(path, zip_error_text(code));
        }
        fill(zip.get());
        if (zip_close(zip.get()) != 0) {
            fail_write(path, zip_strerror(zip.get()));
        }
        (void)zip.release();
    });
}

void add_npy_entry(zip_t * zip, const fs::path & path, std::string_view name, zip_source_t * source) {
    const std::string entry = std::string(name) + ".npy";
    const zip_int64_t at = source == nullptr ? -1 : zip_file_add(zip, entry.c_str(), source, ZIP_FL_ENC_UTF_8);
    if (at < 0) {
        zip_source_free(source);
        fail_write(path, zip_strerror(zip));
    }
    // A fixed date (1980-01-01): equal arrays make equal files.
    constexpr zip_uint16_t kDosDate = (1U << 5U) | 1U;
    if (zip_file_set_dostime(zip, static_cast<zip_uint64_t>(at), 0, kDosDate, 0) != 0 ||
        zip_set_file_compression(zip, static_cast<zip_uint64_t>(at), ZIP_CM_DEFLATE, 1) != 0) {
        fail_write(path, zip_strerror(zip));
    }
}

}  // namespace kvsieve
