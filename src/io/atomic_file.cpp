// SPDX-License-Identifier: MIT
#include "io/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <random>
#include <string>
#include <system_error>

#include "kvsieve/error.h"

namespace kvsieve {
namespace fs = std::filesystem;
namespace {

constexpr int kMaxNames = 100;

[[noreturn]] void fail(const fs::path & path, const std::string & why) {
    throw Error(ErrorCode::io, "cannot write " + path.string() + ": " + why);
}

[[noreturn]] void fail_errno(const fs::path & path) {
    fail(path, std::generic_category().message(errno));
}

/// A file descriptor that is closed on every way out.
class Descriptor {
  public:
    explicit Descriptor(int fd) : fd_(fd) {}
    ~Descriptor() {
        if (fd_ >= 0) {
            ::close(fd_);
        }
    }
    Descriptor(const Descriptor &) = delete;
    Descriptor & operator=(const Descriptor &) = delete;
    [[nodiscard]] int get() const { return fd_; }

  private:
    int fd_;
};

/// A new, empty file in the folder of `target` with the permissions that the umask leaves.
fs::path make_temporary(const fs::path & target, const fs::path & named) {
    std::random_device random;
    for (int i = 0; i < kMaxNames; ++i) {
        fs::path temporary = target;
        temporary.replace_filename("." + target.filename().string() + "." + std::to_string(random()) + ".tmp");
        const Descriptor file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
        if (file.get() >= 0) {
            return temporary;
        }
        if (errno != EEXIST) {
            fail_errno(named);
        }
    }
    fail(named, "no free name for a temporary file beside it");
}

void sync_path(const fs::path & path, int flags, const fs::path & named) {
    const Descriptor file(::open(path.c_str(), flags | O_CLOEXEC));
    if (file.get() < 0 || (::fsync(file.get()) != 0 && errno != EINVAL)) {
        fail_errno(named);
    }
}

void write_all(const fs::path & path, std::string_view bytes, const fs::path & named) {
    const Descriptor file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (file.get() < 0) {
        fail_errno(named);
    }
    while (!bytes.empty()) {
        const ssize_t n = ::write(file.get(), bytes.data(), bytes.size());
        if (n < 0 && errno != EINTR) {
            fail_errno(named);
        }
        bytes.remove_prefix(n > 0 ? static_cast<size_t>(n) : 0);
    }
}

}  // namespace

void atomic_write_file(const fs::path & path, const std::function<void(const fs::path &)> & write) {
    std::error_code ec;
    const fs::path resolved = fs::is_symlink(path, ec) ? fs::weakly_canonical(path, ec) : path;
    const fs::path target = resolved.empty() ? path : resolved;
    const fs::file_status at = fs::status(target, ec);
    if (!target.has_filename() || fs::is_directory(at)) {
        fail(path, "it is a folder; expected a file name");
    }
    if (fs::exists(at) && !fs::is_regular_file(at)) {
        fail(path, "it is not a regular file");
    }
    const fs::path temporary = make_temporary(target, path);
    try {
        write(temporary);
        sync_path(temporary, O_RDONLY, path);
        if (::rename(temporary.c_str(), target.c_str()) != 0) {
            fail_errno(path);
        }
    } catch (...) {
        fs::remove(temporary, ec);
        throw;
    }
    sync_path(target.has_parent_path() ? target.parent_path() : fs::path("."), O_RDONLY | O_DIRECTORY, path);
}

void atomic_write_file(const fs::path & path, std::string_view bytes) {
    atomic_write_file(path, [&](const fs::path & temporary) { write_all(temporary, bytes, path); });
}

}  // namespace kvsieve
