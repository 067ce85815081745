// SPDX-License-Identifier: MIT
// Resident memory of one process that prefills a random prompt: `memory_probe MODEL METHOD KEEP TOKENS CYCLES`.
// Prints one JSON line; a process of its own, because freed memory of other tests would blur the numbers.
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "kvsieve/engine.h"
#include "policy/process_memory.h"

namespace {

uint64_t resident_peak() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<uint64_t>(usage.ru_maxrss) * 1024U;
}

}  // namespace

int main(int argc, char ** argv) {
    if (argc != 6) {
        std::fprintf(stderr, "usage: memory_probe MODEL METHOD KEEP TOKENS CYCLES\n");
        return 2;
    }
    kvsieve::give_back_large_buffers();  // as the program does: docs/memory.md
    const auto model = kvsieve::Model::load({argv[1], {}, 2});
    kvsieve::SessionOptions options;
    options.method = argv[2];
    options.method_options.keep = std::strtod(argv[3], nullptr);
    const int n_tokens = std::atoi(argv[4]), n_cycles = std::atoi(argv[5]);
    std::vector<int32_t> tokens;
    for (int i = 0; i < n_tokens; ++i) {
        tokens.push_back(5 + i * 31 % 250);
    }
    kvsieve::Session session(model, options);
    const uint64_t before = kvsieve::resident_bytes();
    std::string after_cycle;
    for (int i = 0; i < n_cycles; ++i) {
        session.feed(tokens);
        if (i + 1 < n_cycles) {
            session.reset();
            after_cycle += (after_cycle.empty() ? "" : ", ") + std::to_string(kvsieve::resident_bytes());
        }
    }
    const kvsieve::KvUsage usage = session.usage();
    const auto number = [](uint64_t value) { return static_cast<unsigned long long>(value); };
    std::printf(
        "{\"before\": %llu, \"resident\": %llu, \"peak\": %llu, \"held\": %llu, \"reserved\": %llu, \"full\": %llu, "
        "\"peak_kv\": %llu, \"scratch\": %llu, \"after_cycle\": [%s]}\n",
        number(before), number(kvsieve::resident_bytes()), number(resident_peak()), number(usage.bytes_held),
        number(usage.bytes_reserved), number(usage.bytes_full_f16), number(session.peak_kv_bytes()),
        number(session.scratch_bytes()), after_cycle.c_str());
    return 0;
}
