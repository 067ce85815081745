// SPDX-License-Identifier: MIT
// What the writers of .npz files share.
#pragma once

#include <zip.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace kvsieve {

struct ZipDiscard {
    void operator()(zip_t * zip) const { zip_discard(zip); }
};
using Zip = std::unique_ptr<zip_t, ZipDiscard>;

[[nodiscard]] std::string zip_error_text(int code);

/// Writes a zip at `path`, whole or not at all. `fill` adds the entries; what their sources read must live until this
/// returns. Throws Error{io}.
void write_zip(const std::filesystem::path & path, const std::function<void(zip_t * zip)> & fill);

/// Adds the entry NAME.npy, which takes the source over. Throws Error{io}.
void add_npy_entry(zip_t * zip, const std::filesystem::path & path, std::string_view name, zip_source_t * source);

}  // namespace kvsieve
