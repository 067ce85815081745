// SPDX-License-Identifier: MIT
// Quality of the methods on held-out questions: exact match of the greedy answer and perplexity of the true one,
// teacher-forced token by token under the method's decode rule.
//   kvsieve_quality SET.jsonl [--methods all|NAME,...] [--keep R,...] [--limit N] [--shard I/N] [--jsonl OUT]
//                   [-m MODEL.gguf --mmproj MMPROJ.gguf]
// SET: lines {"id", "image", "prompt", "answer", "kind"}; lines with "turns" are asked as a conversation. The table
// goes to stdout, progress to stderr. Shards are every N-th line; their JSON lines add up.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "eval/metrics.h"
#include "kvsieve/engine.h"
#include "kvsieve/error.h"
#include "policy/number.h"
#include "program.h"

namespace {

using kvsieve::Error;
using kvsieve::ErrorCode;

struct Exchange {
    std::string prompt, answer;
};

struct Item {
    std::filesystem::path image;
    std::string kind;
    std::vector<Exchange> turns;
};

struct Setting {
    std::string method;
    double keep;
};

/// Every method with every keep; `full`, which takes none, once.
std::vector<Setting> settings_of(const std::string & method_list, const std::string & keep_list) {
    std::vector<std::string> names = kvsieve::split(method_list, ',');
    if (method_list == "all") {
        names.clear();
        for (const kvsieve::MethodInfo & info : kvsieve::methods()) {
            names.emplace_back(info.name);
        }
    }
    std::vector<Setting> out;
    for (const std::string & name : names) {
        const bool takes_keep = !kvsieve::method_info(name).keep_of.empty();
        for (const std::string & text : takes_keep ? kvsieve::split(keep_list, ',') : std::vector<std::string>{"1"}) {
            double keep = 0;
            const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), keep);
            if (error != std::errc() || end != text.data() + text.size()) {
                throw Error(ErrorCode::invalid_argument, "--keep takes numbers, got " + text);
            }
            static_cast<void>(kvsieve::make_method(name, {.keep = keep}));  // throws for a keep that makes no sense
            out.push_back({name, keep});
        }
    }
    return out;
}

/// Sums over questions; first ones and follow-ups apart.
struct Score {
    int64_t n = 0, n_exact = 0, n_follow = 0, n_follow_exact = 0, n_tokens = 0;
    double nll = 0, kept = 0;
    int64_t n_kept = 0;
    std::map<std::string, std::pair<int64_t, int64_t>> by_kind;  // exact, all; first questions
};

std::vector<Item> read_set(const std::string & path) {
    std::ifstream file(path);
    if (!file) {
        throw Error(ErrorCode::bad_input, path + " cannot be read, expected lines of JSON");
    }
    const std::filesystem::path dir = std::filesystem::path(path).parent_path();
    std::vector<Item> out;
    for (std::string line; std::getline(file, line);) {
        const nlohmann::json row = nlohmann::json::parse(line);
        Item item{dir / row.at("image").get<std::string>(), row.at("kind"), {}};
        if (row.contains("turns")) {
            for (const nlohmann::json & turn : row["turns"]) {
                item.turns.push_back({turn.at("prompt"), turn.at("answer")});
            }
        } else {
            item.turns.push_back({row.at("prompt"), row.at("answer")});
        }
        out.push_back(std::move(item));
    }
    return out;
}

/// The greedy answer, which is the true one as long as every argmax agrees: one teacher-forced pass gives both exact
/// match and perplexity. Every question of a conversation goes on from the true answers before it.
void ask(const std::shared_ptr<const kvsieve::Model> & model, const Item & item, const Setting & setting,
         int32_t end_token, Score & score) {
    kvsieve::SessionOptions options;
    options.method = setting.method;
    options.method_options.keep = setting.keep;
    kvsieve::Session session(model, options);
    for (size_t t = 0; t < item.turns.size(); ++t) {
        const Exchange & turn = item.turns[t];
        std::span<const float> logits;
        if (t == 0) {
            logits = session.feed(kvsieve::Turn{turn.prompt, {item.image}}, true);
            const kvsieve::KvUsage usage = session.usage();
            score.kept += static_cast<double>(usage.bytes_held) / static_cast<double>(usage.bytes_full_f16);
            ++score.n_kept;
        } else {
            const std::string text = "\n<|im_start|>user\n" + turn.prompt + "<|im_end|>\n<|im_start|>assistant\n";
            logits = session.feed(model->tokenize(text, false, true));
        }
        std::vector<int32_t> answer = model->tokenize(turn.answer, false, false);
        answer.push_back(end_token);
        bool exact = true;
        for (size_t i = 0; i < answer.size(); ++i) {
            score.nll += kvsieve::token_nll(logits, answer[i]);
            exact = exact && std::max_element(logits.begin(), logits.end()) - logits.begin() == answer[i];
            if (i + 1 < answer.size() || t + 1 < item.turns.size()) {
                logits = session.feed(std::span(answer).subspan(i, 1));
            }
        }
        score.n_tokens += static_cast<int64_t>(answer.size());
        (t == 0 ? score.n : score.n_follow) += 1;
        (t == 0 ? score.n_exact : score.n_follow_exact) += exact ? 1 : 0;
        if (t == 0) {
            auto & kind = score.by_kind[item.kind];
            kind.first += exact ? 1 : 0;
            ++kind.second;
        }
    }
}

double percent(int64_t part, int64_t all) {
    return all == 0 ? 0.0 : 100.0 * static_cast<double>(part) / static_cast<double>(all);
}

int64_t number(const std::string & text, const char * what) {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < 0) {
        throw Error(ErrorCode::invalid_argument, std::string(what) + " takes a number, got " + text);
    }
    return value;
}

int run(const std::vector<std::string> & args) {
    std::string set, jsonl, method_list = "full,prefixkv,aircache,random", keep_list = "0.5,0.2,0.1";
    int64_t limit = 0, shard = 0, n_shards = 1;
    kvsieve::ModelOptions files;
    for (size_t i = 0; i < args.size(); ++i) {
        const std::string & arg = args[i];
        if (!arg.starts_with("-")) {
            set = arg;
            continue;
        }
        if (i + 1 == args.size()) {
            throw Error(ErrorCode::invalid_argument, arg + " takes a value");
        }
        const std::string & value = args[++i];
        if (arg == "--methods") {
            method_list = value;
        } else if (arg == "--keep") {
            keep_list = value;
        } else if (arg == "--limit") {
            limit = number(value, "--limit");
        } else if (arg == "--shard") {
            const size_t slash = value.find('/');
            shard = number(value.substr(0, slash), "--shard");
            n_shards = slash == std::string::npos ? 0 : number(value.substr(slash + 1), "--shard");
            if (shard >= n_shards) {
                throw Error(ErrorCode::invalid_argument, "--shard takes I/N with I from 0 to N-1, got " + value);
            }
        } else if (arg == "--jsonl") {
            jsonl = value;
        } else if (arg == "-m") {
            files.model = value;
        } else if (arg == "--mmproj") {
            files.mmproj = value;
        } else {
            throw Error(ErrorCode::invalid_argument, "unknown option " + arg);
        }
    }
    if (set.empty()) {
        throw Error(ErrorCode::invalid_argument, "the file of questions is missing");
    }
    const std::vector<Setting> settings = settings_of(method_list, keep_list);
    if (files.model.empty()) {
        files = kvsieve::embedded_model();
    }
    const std::shared_ptr<const kvsieve::Model> model = kvsieve::Model::load(files);
    const int32_t end_token = model->tokenize("<|im_end|>", false, true).front();

    std::vector<Item> items;
    const std::vector<Item> all = read_set(set);
    for (size_t i = static_cast<size_t>(shard); i < all.size(); i += static_cast<size_t>(n_shards)) {
        items.push_back(all[i]);
    }
    if (limit > 0 && items.size() > static_cast<size_t>(limit)) {
        // spread over the set, so that all kinds are there
        std::vector<Item> some;
        for (size_t i = 0; i < static_cast<size_t>(limit); ++i) {
            some.push_back(items[i * items.size() / static_cast<size_t>(limit)]);
        }
        items = std::move(some);
    }

    std::vector<Score> scores(settings.size());
    for (size_t i = 0; i < items.size(); ++i) {
        for (size_t s = 0; s < scores.size(); ++s) {
            ask(model, items[i], settings[s], end_token, scores[s]);
        }
        if ((i + 1) % 10 == 0 || i + 1 == items.size()) {
            std::cerr << i + 1 << " of " << items.size() << "\n";
        }
    }

    std::ofstream lines;
    if (!jsonl.empty()) {
        lines.open(jsonl);
    }
    std::printf(
        "| method | keep | bytes kept | exact match | forms and tables | follow-ups | answer perplexity |\n"
        "|---|---|---|---|---|---|---|\n");
    for (size_t s = 0; s < scores.size(); ++s) {
        Score & score = scores[s];
        const auto & [form_exact, form_all] = score.by_kind["form"];
        const auto & [table_exact, table_all] = score.by_kind["table"];
        const double perplexity = std::exp(score.nll / static_cast<double>(score.n_tokens));
        std::printf("| %s | %g | %.1f %% | %.1f %% (%lld) | %.1f %% | %.1f %% (%lld) | %.3f |\n",
                    settings[s].method.c_str(), settings[s].keep,
                    100.0 * score.kept / static_cast<double>(score.n_kept), percent(score.n_exact, score.n),
                    static_cast<long long>(score.n), percent(form_exact + table_exact, form_all + table_all),
                    percent(score.n_follow_exact, score.n_follow), static_cast<long long>(score.n_follow), perplexity);
        nlohmann::json kinds;
        for (const auto & [kind, counts] : score.by_kind) {
            kinds[kind] = {{"exact", counts.first}, {"n", counts.second}};
        }
        const nlohmann::json line = {{"method", settings[s].method},
                                     {"keep", settings[s].keep},
                                     {"n", score.n},
                                     {"exact", score.n_exact},
                                     {"n_follow_up", score.n_follow},
                                     {"exact_follow_up", score.n_follow_exact},
                                     {"n_tokens", score.n_tokens},
                                     {"nll", score.nll},
                                     {"kept_share", score.kept / static_cast<double>(score.n_kept)},
                                     {"kinds", kinds}};
        if (lines) {
            lines << line.dump() << "\n";
        }
    }
    return 0;
}

}  // namespace

int main(int argc, char ** argv) {
    return kvsieve::run_program("kvsieve_quality", argc, argv, run);
}
