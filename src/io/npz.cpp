// SPDX-License-Identifier: MIT
#include "io/npz.h"

#include <zip.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "io/zip_write.h"
#include "kvsieve/error.h"

namespace kvsieve {
namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little, "arrays are read and written as they lie in memory");

namespace {

constexpr std::string_view kSuffix = ".npy";
constexpr uint64_t kMaxDeflateRatio = 1032;  // 258 bytes from two bits, the most that deflate can reach
constexpr zip_int64_t kMaxEntries = 1000;
constexpr size_t kReadStep = size_t{1} << 20U;

struct ZipFileClose {
    void operator()(zip_file_t * file) const { zip_fclose(file); }
};
using ZipFile = std::unique_ptr<zip_file_t, ZipFileClose>;

/// The array's bytes as values of type T.
template <typename T>
std::vector<T> values_of(std::span<const uint8_t> bytes) {
    std::vector<T> out(bytes.size() / sizeof(T));
    if (!out.empty()) {
        std::memcpy(out.data(), bytes.data(), out.size() * sizeof(T));
    }
    return out;
}

}  // namespace

struct NpzFile::Archive {
    struct Entry {
        zip_uint64_t index = 0;
        uint64_t size = 0;  ///< uncompressed, as declared
    };
    Zip zip;
    std::map<std::string, Entry> entries;
};

NpzFile::NpzFile(NpzFile &&) noexcept = default;
NpzFile & NpzFile::operator=(NpzFile &&) noexcept = default;
NpzFile::~NpzFile() = default;

void NpzFile::fail(const std::string & name, const std::string & why) const {
    throw Error(ErrorCode::bad_input, "array " + name + " of " + path_ + ": " + why);
}

NpzFile::NpzFile(const fs::path & path) : path_(path.string()), archive_(std::make_unique<Archive>()) {
    std::error_code ec;
    if (!fs::is_regular_file(path, ec)) {
        throw Error(ErrorCode::bad_input, "cannot read " + path_ + ": " +
                                              (fs::exists(path, ec) ? "it is not a file" : "there is no such file"));
    }
    const uint64_t file_size = fs::file_size(path, ec);
    int code = 0;
    archive_->zip.reset(zip_open(path.c_str(), ZIP_RDONLY, &code));
    if (!archive_->zip) {
        throw Error(ErrorCode::bad_input,
                    "cannot read " + path_ + " as an .npz file (a zip of arrays): " + zip_error_text(code));
    }
    zip_t * const zip = archive_->zip.get();
    const zip_int64_t n_entries = zip_get_num_entries(zip, 0);
    if (n_entries > kMaxEntries) {
        throw Error(ErrorCode::bad_input, path_ + " has " + std::to_string(n_entries) + " entries; expected at most " +
                                              std::to_string(kMaxEntries));
    }
    for (zip_uint64_t i = 0; i < static_cast<zip_uint64_t>(n_entries); ++i) {
        zip_stat_t stat;
        constexpr zip_uint64_t kNeeded = ZIP_STAT_NAME | ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD;
        if (zip_stat_index(zip, i, 0, &stat) != 0 || (stat.valid & kNeeded) != kNeeded) {
            throw Error(ErrorCode::bad_input, "entry " + std::to_string(i) + " of " + path_ + " is damaged");
        }
        const std::string_view full = stat.name;
        if (!full.ends_with(kSuffix)) {
            continue;  // not an array
        }
        const std::string name(full.substr(0, full.size() - kSuffix.size()));
        if (stat.comp_method != ZIP_CM_STORE && stat.comp_method != ZIP_CM_DEFLATE) {
            fail(name,
                 "its compression method is " + std::to_string(stat.comp_method) + "; expected stored or deflated");
        }
        if ((stat.valid & ZIP_STAT_ENCRYPTION_METHOD) != 0 && stat.encryption_method != ZIP_EM_NONE) {
            fail(name, "it is encrypted");
        }
        const bool stored = stat.comp_method == ZIP_CM_STORE;
        if (stat.comp_size > file_size || (stored && stat.size != stat.comp_size) ||
            stat.size / kMaxDeflateRatio > stat.comp_size) {
            fail(name, "its declared sizes (" + std::to_string(stat.comp_size) + " bytes packed, " +
                           std::to_string(stat.size) + " unpacked) do not fit a file of " + std::to_string(file_size) +
                           " bytes");
        }
        if (!archive_->entries.try_emplace(name, Archive::Entry{.index = stat.index, .size = stat.size}).second) {
            fail(name, "it is there twice");
        }

        const ZipFile file(zip_fopen_index(zip, i, 0));
        std::vector<uint8_t> start(std::min<uint64_t>(stat.size, kMaxNpyHeader));
        if (!file || zip_fread(file.get(), start.data(), start.size()) != static_cast<zip_int64_t>(start.size())) {
            fail(name, "it cannot be unpacked");
        }
        NpyHeader header = parse_npy_header(start, "array " + name + " of " + path_);
        const uint64_t needed = header.n_elements * npy_type_size(header.type);
        if (stat.size < header.data_offset || stat.size - header.data_offset != needed) {
            fail(name, "its shape " + shape_text(header.shape) + " of " + std::string(npy_type_name(header.type)) +
                           " takes " + std::to_string(needed) + " bytes; its entry holds " +
                           std::to_string(stat.size - std::min(stat.size, header.data_offset)));
        }
        headers_.emplace(name, std::move(header));
    }
}

const NpyHeader & NpzFile::header(const std::string & name) const {
    const auto found = headers_.find(name);
    if (found == headers_.end()) {
        throw Error(ErrorCode::bad_input, path_ + " has no array " + name);
    }
    return found->second;
}

std::vector<uint8_t> NpzFile::read_raw(const std::string & name) const {
    const NpyHeader & head = header(name);
    const Archive::Entry & entry = archive_->entries.at(name);
    if (entry.size > kMaxArrayBytes) {
        throw Error(ErrorCode::too_large, "array " + name + " of " + path_ + " has " + std::to_string(entry.size) +
                                              " bytes; expected at most " + std::to_string(kMaxArrayBytes));
    }
    const ZipFile file(zip_fopen_index(archive_->zip.get(), entry.index, 0));
    if (!file) {
        fail(name, "it cannot be unpacked");
    }
    // Grows with what really comes out, so that a false size costs no memory.
    std::vector<uint8_t> out;
    while (out.size() < entry.size) {
        const size_t at = out.size();
        const size_t step = std::min<uint64_t>(std::max(kReadStep, at), entry.size - at);
        out.resize(at + step);
        const zip_int64_t n = zip_fread(file.get(), out.data() + at, step);
        if (n != static_cast<zip_int64_t>(step)) {
            fail(name, n < 0 ? "it is damaged (" + std::string(zip_file_strerror(file.get())) + ")" : "it is cut");
        }
    }
    uint8_t beyond = 0;
    if (const zip_int64_t n = zip_fread(file.get(), &beyond, 1); n != 0) {  // libzip compares the checksum here
        fail(name, n < 0 ? "it is damaged (" + std::string(zip_file_strerror(file.get())) + ")"
                         : "it is longer than declared");
    }
    out.erase(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(head.data_offset));
    return out;
}

std::vector<float> NpzFile::read_floats(const std::string & name) const {
    const NpyType type = header(name).type;
    if (type != NpyType::f2 && type != NpyType::f4 && type != NpyType::f8) {
        fail(name, "its type is " + std::string(npy_type_name(type)) + "; expected float32");
    }
    const std::vector<uint8_t> raw = read_raw(name);
    std::vector<float> out;
    if (type == NpyType::f4) {
        out = values_of<float>(raw);
    } else if (type == NpyType::f8) {
        const auto wide = values_of<double>(raw);
        out.resize(wide.size());
        std::transform(wide.begin(), wide.end(), out.begin(), [](double x) { return static_cast<float>(x); });
    } else {
        const auto half = values_of<uint16_t>(raw);
        out.resize(half.size());
        std::transform(half.begin(), half.end(), out.begin(), half_to_float);
    }
    const auto bad = std::find_if(out.begin(), out.end(), [](float x) { return !std::isfinite(x); });
    if (bad != out.end()) {
        fail(name, std::string(std::isnan(*bad) ? "NaN" : "infinity") + " at element " +
                       std::to_string(bad - out.begin()) + "; expected finite numbers");
    }
    return out;
}

std::vector<uint8_t> NpzFile::read_bytes(const std::string & name) const {
    const NpyType type = header(name).type;
    if (type != NpyType::u1 && type != NpyType::b1) {
        fail(name, "its type is " + std::string(npy_type_name(type)) + "; expected uint8");
    }
    return read_raw(name);
}

std::vector<int64_t> NpzFile::read_integers(const std::string & name) const {
    const NpyType type = header(name).type;
    if (type != NpyType::i4 && type != NpyType::i8) {
        fail(name, "its type is " + std::string(npy_type_name(type)) + "; expected int32");
    }
    const std::vector<uint8_t> raw = read_raw(name);
    if (type == NpyType::i8) {
        return values_of<int64_t>(raw);
    }
    const auto narrow = values_of<int32_t>(raw);
    return {narrow.begin(), narrow.end()};
}

void write_npz(const fs::path & path, std::span<const NpzArray> arrays) {
    if (arrays.empty()) {  // libzip writes no file without entries
        throw Error(ErrorCode::invalid_argument, path.string() + " would hold no array; expected at least one");
    }
    // Header and data of an entry are one buffer for libzip: fragments, both alive until zip_close().
    std::vector<std::string> headers;
    for (const NpzArray & array : arrays) {
        uint64_t n_elements = 1;
        for (const uint64_t dim : array.shape) {
            n_elements *= dim;
        }
        if (n_elements * npy_type_size(array.type) != array.data.size()) {
            throw Error(ErrorCode::invalid_argument, "array " + array.name + " has " +
                                                         std::to_string(array.data.size()) + " bytes; its shape " +
                                                         shape_text(array.shape) + " takes " +
                                                         std::to_string(n_elements * npy_type_size(array.type)));
        }
        headers.push_back(make_npy_header(array.type, array.shape));
    }
    std::vector<std::vector<zip_buffer_fragment_t>> fragments(arrays.size());
    write_zip(path, [&](zip_t * zip) {
        for (size_t i = 0; i < arrays.size(); ++i) {
            // libzip's fragments are not const, but a source made from them is only read.
            const auto bytes_of = [](const void * data) {
                return static_cast<zip_uint8_t *>(const_cast<void *>(data));  // NOLINT
            };
            fragments[i].push_back({bytes_of(headers[i].data()), headers[i].size()});
            if (!arrays[i].data.empty()) {
                fragments[i].push_back({bytes_of(arrays[i].data.data()), arrays[i].data.size()});
            }
            add_npy_entry(zip, path, arrays[i].name,
                          zip_source_buffer_fragment(zip, fragments[i].data(), fragments[i].size(), 0));
        }
    });
}

}  // namespace kvsieve
