// SPDX-License-Identifier: MIT
#include "eval/results.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <iterator>
#include <system_error>

#include "eval/result_lines.h"
#include "kvsieve/error.h"

namespace kvsieve {
namespace fs = std::filesystem;
namespace {

using nlohmann::json;

/// What lines said so far, over all files.
struct Collected {
    std::optional<ResultsHeader> header;
    std::string header_line, header_at;
    std::map<CellKey, size_t> grid;  ///< index
    std::map<std::pair<size_t, std::string>, CellResult> cells;
    std::map<std::string, SampleFacts> facts;
};

/// The first field in which two header lines differ.
std::string difference(const json & a, const json & b) {
    for (const auto & [key, value] : a.items()) {
        if (!b.contains(key) || b[key] != value) {
            return key;
        }
    }
    return "the format";
}

void take_header(Collected & all, const json & object, std::string_view line, const std::string & at) {
    if (!all.header) {
        all.header = header_from(object);
        all.header_line = line;
        all.header_at = at;
        for (const CellKey & key : all.header->grid) {
            if (!all.grid.emplace(key, all.grid.size()).second) {
                throw LineError{"the grid has a cell of " + method_label(key) + " twice"};
            }
        }
    } else if (line != all.header_line) {
        throw LineError{"its header differs from that of " + all.header_at + " in " +
                        difference(json::parse(all.header_line), object) +
                        "; results of different runs cannot be mixed"};
    }
}

template <typename Map, typename Key, typename Value>
void take(Map & map, const Key & key, Value value, const std::string & what) {
    const auto [at, is_new] = map.try_emplace(key, value);
    if (!is_new && !(at->second == value)) {
        throw LineError{"a second, different line for " + what};
    }
}

void take_line(Collected & all, std::string_view line, const std::string & at) {
    const json object = json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!object.is_object()) {
        throw LineError{"it is no JSON object; expected a line that kvsieve eval wrote"};
    }
    if (object.contains(kHeaderKey)) {
        take_header(all, object, line, at);
    } else if (!all.header) {
        throw LineError{"the header is missing; expected a file that kvsieve eval wrote"};
    } else if (object.contains(kFactsKey)) {
        SampleFacts facts = facts_from(object);
        const std::string sample = facts.sample;
        take(all.facts, sample, std::move(facts), "the facts of sample " + sample);
    } else {
        CellResult cell = cell_from(object);
        const auto found = all.grid.find(cell.key);
        if (found == all.grid.end()) {
            throw LineError{"a cell of " + method_label(cell.key) + " that the header's grid does not have"};
        }
        const std::pair key(found->second, cell.sample);
        const std::string what = method_label(cell.key) + " on sample " + cell.sample;
        take(all.cells, key, std::move(cell), what);
    }
}

/// Takes all lines that have their end; returns the bytes that they fill.
size_t take_lines(Collected & all, std::string_view bytes, const fs::path & path) {
    size_t at = 0;
    for (size_t number = 1; at < bytes.size(); ++number) {
        const size_t end = bytes.find('\n', at);
        if (end == std::string_view::npos) {
            break;
        }
        const std::string where = path.string() + " line " + std::to_string(number);
        try {
            take_line(all, bytes.substr(at, end - at), where);
        } catch (const LineError & error) {
            throw Error(ErrorCode::bad_input, where + ": " + error.why);
        }
        at = end + 1;
    }
    return at;
}

std::string read_whole(const fs::path & path) {
    std::error_code ec;
    std::ifstream in(path, std::ios::binary);
    std::string bytes{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    if (!in || fs::is_directory(path, ec)) {
        throw Error(ErrorCode::bad_input,
                    path.string() + (fs::exists(path, ec) ? " cannot be read" : ": there is no such file"));
    }
    return bytes;
}

[[noreturn]] void fail_write(const fs::path & path, int error) {
    throw Error(ErrorCode::io, "cannot write " + path.string() + ": " + std::generic_category().message(error));
}

}  // namespace

std::string method_label(const CellKey & key) {
    std::string out = key.method;
    for (const auto & [name, value] : key.params) {
        out += " " + name + "=" + value;
    }
    return out;
}

Results read_results(std::span<const fs::path> paths) {
    Collected all;
    for (const fs::path & path : paths) {
        const std::string bytes = read_whole(path);
        if (take_lines(all, bytes, path) == 0) {
            throw Error(ErrorCode::bad_input,
                        path.string() + ": it has no whole line; expected results of kvsieve eval");
        }
    }
    if (!all.header) {
        throw Error(ErrorCode::invalid_argument, "no results file was given");
    }
    Results results{.header = std::move(*all.header), .cells = {}, .samples = {}};
    std::map<std::string, size_t> n_cells;
    for (auto & [key, cell] : all.cells) {
        if (++n_cells[cell.sample] == results.header.grid.size()) {
            ++results.n_complete;
        }
        results.cells.push_back(std::move(cell));
    }
    for (auto & [sample, facts] : all.facts) {
        results.samples.push_back(std::move(facts));
    }
    return results;
}

ResultsFile::ResultsFile(const fs::path & path, const ResultsHeader & header) : path_(path), header_(header) {
    struct stat at {};
    const bool is_file = ::stat(path.c_str(), &at) != 0 || S_ISREG(at.st_mode);
    fd_ = ::open(path.c_str(), (is_file ? O_RDWR | O_CREAT : O_WRONLY) | O_APPEND | O_CLOEXEC, 0666);
    if (fd_ < 0) {
        fail_write(path, errno);
    }
    const std::string header_line = line_of(to_json(header));
    try {
        if (is_file && ::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
            throw Error(ErrorCode::io, "cannot write " + path.string() + ": another process is writing it");
        }
        const std::string bytes = is_file ? read_whole(path) : "";
        Collected all;
        take_header(all, json::parse(header_line), std::string_view(header_line).substr(0, header_line.size() - 1),
                    "this run");
        const bool starts_alike = header_line.starts_with(bytes.substr(0, header_line.size()));
        const size_t n_whole = starts_alike && bytes.size() < header_line.size() ? 0 : take_lines(all, bytes, path);
        if (!bytes.empty() && n_whole == 0 && !starts_alike) {
            throw Error(ErrorCode::bad_input,
                        path.string() + ": it holds no results of kvsieve eval; it was left alone");
        }
        if (n_whole < bytes.size() && ::ftruncate(fd_, static_cast<off_t>(n_whole)) != 0) {
            fail_write(path, errno);
        }
        for (const auto & [key, cell] : all.cells) {
            done_[cell.sample].insert(key.first);
        }
        for (const auto & [sample, facts] : all.facts) {
            facts_.insert(sample);
        }
        if (n_whole == 0) {
            write_line(header_line);
        }
    } catch (...) {
        ::close(fd_);
        throw;
    }
}

ResultsFile::~ResultsFile() {
    ::close(fd_);
}

bool ResultsFile::is_complete(const std::string & sample) const {
    const auto found = done_.find(sample);
    return found != done_.end() && found->second.size() == header_.grid.size();
}

void ResultsFile::append(const CellResult & result) {
    const auto at = std::find(header_.grid.begin(), header_.grid.end(), result.key);
    if (at == header_.grid.end()) {
        throw Error(ErrorCode::invalid_argument,
                    "the grid of " + path_.string() + " has no such cell of " + method_label(result.key));
    }
    const auto index = static_cast<size_t>(at - header_.grid.begin());
    if (done_[result.sample].contains(index)) {
        return;
    }
    const std::string line = line_of(to_json(result));
    try {
        (void)cell_from(json::parse(line));  // NaN and infinity are null in JSON
    } catch (const LineError & error) {
        throw Error(ErrorCode::invalid_argument,
                    "the result of " + method_label(result.key) + " on sample " + result.sample + ": " + error.why);
    }
    write_line(line);
    done_[result.sample].insert(index);
}

void ResultsFile::append(const SampleFacts & facts) {
    if (!facts_.contains(facts.sample)) {
        write_line(line_of(to_json(facts)));
        facts_.insert(facts.sample);
    }
}

void ResultsFile::write_line(const std::string & line) {
    std::string_view rest = line;
    while (!rest.empty()) {
        const ssize_t n = ::write(fd_, rest.data(), rest.size());
        if (n < 0 && errno != EINTR) {
            fail_write(path_, errno);
        }
        rest.remove_prefix(n > 0 ? static_cast<size_t>(n) : 0);
    }
}

}  // namespace kvsieve
