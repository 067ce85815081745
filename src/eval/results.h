// SPDX-License-Identifier: MIT
// The results file of an evaluation: JSON lines that survive a kill at any byte (docs/eval.md has the format).
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

namespace kvsieve {

/// One cell of the grid. Exactly one of `keep` and `budget` is given.
struct CellKey {
    std::string method;
    std::map<std::string, std::string> params = {};  ///< as typed
    std::optional<double> keep = std::nullopt;
    std::optional<double> budget = std::nullopt;  ///< share of the f16 bytes of the prompt's whole cache
    std::string kv_type = "f16";

    [[nodiscard]] auto operator<=>(const CellKey &) const = default;
};
/// The name in `method` that is no method: sieve with the queries of the sample's true answer as its probes, a bound
/// for what probes can reach.
inline constexpr const char * kOracle = "oracle";
inline constexpr const char * kOracleNote =
    "oracle is not a method: it is sieve with the queries of the true answer, a bound for what probes can reach.";
/// "aircache alpha=0.8": method and parameters.
[[nodiscard]] std::string method_label(const CellKey & key);

/// What a results file is about; equal in all files that are read together, byte for byte.
struct ResultsHeader {
    std::string version;            ///< of kvsieve
    std::string command;            ///< the options that decide results: no output path, shard or threads
    std::string model;              ///< the model's own name
    std::string model_fingerprint;  ///< of language model and, behind a '+', vision encoder
    std::string data;               ///< file name
    std::string data_sha256;
    int64_t n_samples = 0;  ///< of the whole run, all shards together
    int32_t n_layer = 0;
    int32_t n_head_kv = 0;
    std::vector<std::string> metrics;  ///< as asked for
    std::vector<CellKey> grid;         ///< every cell of one sample, in the order of reports
};

/// The metrics that are means over samples; `ppl` has its own fields.
inline constexpr const char * kMeanMetrics[] = {"rouge_l", "exact_match", "anls", "relaxed_accuracy",
                                                "exact_match_next"};

/// One finished cell of one sample.
struct CellResult {
    std::string sample;
    std::string group;  ///< Sample::group
    CellKey key;
    double keep = 1.0;                           ///< what the method was given; solved where the key has a budget
    int64_t n_prompt = 0;                        ///< prompt tokens
    uint64_t kv_bytes = 0;                       ///< of the rows held after compaction, in their type
    uint64_t kv_bytes_full = 0;                  ///< of every prompt row in f16
    int64_t n_tokens = 0;                        ///< answer tokens in `nll`; 0 where perplexity was not asked for
    double nll = 0.0;                            ///< nats
    std::map<std::string, double> metrics = {};  ///< by the names of kMeanMetrics
    int64_t n_next = 0;                          ///< later questions that exact_match_next is the mean of
    std::string error = {};                      ///< why the cell could not be computed; it then has no metric
    std::string text = {};                       ///< the generated answer

    // for figures, all optional
    std::vector<int64_t> layer_rows = {};  ///< [L] rows held, summed over KV heads
    std::vector<double> strength = {};     ///< [L] AirCache, of the layer
    std::vector<double> skewness = {};     ///< [L]
    std::vector<double> token_layers =
        {};  ///< [n_visual of the first image] layers that keep the token, mean over heads

    [[nodiscard]] bool operator==(const CellResult &) const = default;
};

/// What belongs to a sample and to no cell. At most one for each sample.
struct SampleFacts {
    std::string sample;
    std::vector<double> gini = {};                 ///< [L] of the full cache's attention (inequality.h)
    std::vector<std::vector<double>> lorenz = {};  ///< [L][n_points]
    std::string image = {};                        ///< first image as a data: URI, for overlays
    int32_t nx = 0, ny = 0;                        ///< its token grid

    [[nodiscard]] bool operator==(const SampleFacts &) const = default;
};

struct Results {
    ResultsHeader header;
    std::vector<CellResult> cells;     ///< ordered by grid, then sample id
    std::vector<SampleFacts> samples;  ///< ordered by sample id
    int64_t n_complete = 0;            ///< samples with every cell of the grid
};

/// Reads files, concatenated or not, in any order; what comes back does not depend on it. A last line without its end
/// is left out. Throws Error{bad_input} naming file and line: no header, headers that differ, a damaged line, two
/// different results for one cell.
[[nodiscard]] Results read_results(std::span<const std::filesystem::path> paths);

/// A results file that is being written. Opening a file that is there resumes it: a half-written last line is cut off,
/// everything else has to belong to the same header. One process at a time; not thread-safe.
class ResultsFile {
  public:
    /// Throws Error{io} where the file cannot be written or another process writes it, Error{bad_input} where it holds
    /// something else.
    ResultsFile(const std::filesystem::path & path, const ResultsHeader & header);
    ~ResultsFile();
    ResultsFile(const ResultsFile &) = delete;
    ResultsFile & operator=(const ResultsFile &) = delete;

    /// Every cell of the grid is there. The sample is the unit of resuming: a sample that is not complete is computed
    /// again as a whole, and append() leaves out what was there.
    [[nodiscard]] bool is_complete(const std::string & sample) const;
    /// Writes one line with one system call. Throws Error{io}; nothing written before is lost. Throws
    /// Error{invalid_argument} for a cell outside of the grid or a number that is not finite.
    void append(const CellResult & result);
    void append(const SampleFacts & facts);

  private:
    void write_line(const std::string & line);

    std::filesystem::path path_;
    int fd_ = -1;
    ResultsHeader header_;
    std::map<std::string, std::set<size_t>> done_;  // sample -> indices into the grid
    std::set<std::string> facts_;
};

}  // namespace kvsieve
