// SPDX-License-Identifier: MIT
// kvsieve bench: speed and memory of a prompt and of the tokens behind it.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cache_args.h"
#include "commands.h"
#include "eval/made_up_tokens.h"
#include "eval/metrics.h"
#include "format.h"
#include "kvsieve/engine.h"
#include "kvsieve/error.h"
#include "method_options.h"
#include "model_args.h"
#include "policy/clock.h"
#include "policy/number.h"
#include "policy/process_memory.h"
#include "print.h"
#include "question_image.h"
#include "terminal.h"
#include "usage.h"

using namespace kvsieve;
namespace fs = std::filesystem;

namespace {

constexpr const char * kQuestion = "What is to be seen here?";
constexpr int32_t kCheckTokens = 512;  // of the prompt
constexpr int32_t kCheckSteps = 8;
constexpr int32_t kFirstVisual = 4;
constexpr double kMaxKl = 0.01;  // mean; libllama's two attention paths differ by 0.004 on 4-bit weights

struct BenchArgs {
    ModelArgs model;
    MethodArgs method;
    CacheArgs cache;
    std::string prompt_tokens;  ///< as typed; empty: not given
    std::string batch;          ///< the same
    std::vector<std::string> images;
    int32_t n_visual = 0;
    int32_t n_gen = 64;
    int32_t n_repeat = 3;
    bool bare = false;
    bool json = false;
};

/// What is fed: made-up text of `n_tokens`, or a question about images.
struct Work {
    int32_t n_tokens = 0;
    int32_t n_visual = 0;  ///< of them, from kFirstVisual on
    Turn turn;
};

struct Measured {
    int32_t n_prompt = 0;
    double keep = 1.0;
    std::vector<double> prefill_ms, ttft_ms, observe_ms, plan_ms, compact_ms, step_ms;
    uint64_t kv_bytes = 0, kv_bytes_peak = 0, rss_bytes = 0;
};

[[noreturn]] void refuse(const std::string & sentence) {
    throw Error(ErrorCode::invalid_argument, sentence);
}

std::span<const float> feed(Session & session, const ModelInfo & info, const Work & work) {
    if (!work.turn.images.empty()) {
        return session.feed(work.turn, true);
    }
    std::vector<uint8_t> visual_mask(static_cast<size_t>(work.n_tokens));
    std::fill_n(visual_mask.begin() + std::min(kFirstVisual, work.n_tokens), work.n_visual, uint8_t{1});
    return session.feed(made_up_tokens(info.n_vocab, work.n_tokens), visual_mask);
}

std::span<const float> feed(Session & session, int32_t token) {
    return session.feed(std::span<const int32_t>(&token, 1));
}

int32_t likeliest(std::span<const float> logits) {
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

/// KL(softmax(p) || softmax(q)).
double kl_divergence(std::span<const float> p, std::span<const float> q) {
    const double log_p = log_sum_exp(p), log_q = log_sum_exp(q);
    double kl = 0;
    for (size_t i = 0; i < p.size(); ++i) {
        const double a = static_cast<double>(p[i]) - log_p;
        kl += std::exp(a) * (a - static_cast<double>(q[i]) + log_q);
    }
    return kl;
}

/// Sequences behind one prompt that decode together.
class Batch {
  public:
    Batch(Session & first, int32_t n_seq) {
        for (int32_t i = 1; i < n_seq; ++i) {
            others_.push_back(first.fork());
        }
        all_.push_back(&first);
        std::ranges::transform(others_, std::back_inserter(all_), [](Session & other) { return &other; });
    }
    void feed(std::span<const int32_t> tokens) {
        if (all_.size() == 1) {
            static_cast<void>(all_[0]->feed(tokens));
        } else {
            feed_batch(all_, tokens);
        }
    }
    [[nodiscard]] const std::vector<Session *> & sessions() const { return all_; }

  private:
    std::vector<Session> others_;
    std::vector<Session *> all_;
};

/// The kernel against ggml's operation on the same tokens, before anything is timed.
void check_kernel(const std::shared_ptr<const Model> & model, SessionOptions options, Work work, int32_t n_seq) {
    if (!options.attention_kernel) {
        return;
    }
    work.n_tokens = std::min(work.n_tokens, kCheckTokens);
    work.n_visual = std::min(work.n_visual, kCheckTokens / 2);
    Session ours(model, options);
    options.attention_kernel = false;
    Session reference(model, options);
    feed(ours, model->info(), work);
    int32_t token = likeliest(feed(reference, model->info(), work));
    Batch batch(ours, n_seq);
    double kl = 0;
    for (int32_t i = 0; i < kCheckSteps; ++i) {
        const std::span<const float> expected = feed(reference, token);
        batch.feed(std::vector<int32_t>(static_cast<size_t>(n_seq), token));
        kl += kl_divergence(expected, batch.sessions().back()->logits()) / kCheckSteps;
        token = likeliest(expected);
    }
    if (!(kl <= kMaxKl)) {
        throw Error(ErrorCode::runtime,
                    fmt::format("the decode kernel differs from ggml's operation by a mean KL divergence of {:.2g}, "
                                "expected at most {}; nothing was timed",
                                kl, kMaxKl));
    }
}

/// `n_seq` sequences behind copies of one prompt decode together.
Measured measure(const std::shared_ptr<const Model> & model, const SessionOptions & options, const Work & work,
                 int32_t n_seq, const BenchArgs & args, Progress & progress) {
    using Clock = std::chrono::steady_clock;
    Measured out;
    Session session(model, options);
    SessionOptions full;
    full.kv_type = options.kv_type;
    full.n_ctx = options.n_ctx;
    Session unobserved(model, full);
    for (int32_t r = 0; r < args.n_repeat; ++r) {
        progress.update("measuring", static_cast<double>(r) / args.n_repeat);
        auto start = Clock::now();
        int32_t token = likeliest(feed(session, model->info(), work));
        out.ttft_ms.push_back(ms_since(start));
        const Timings timings = session.timings();
        out.prefill_ms.push_back(timings.prefill_ms);
        out.plan_ms.push_back(timings.plan_ms);
        out.compact_ms.push_back(timings.compact_ms);
        out.n_prompt = session.n_processed();
        out.keep = session.method_options().keep;
        out.kv_bytes = session.usage().bytes_held;
        Batch batch(session, n_seq);
        out.kv_bytes *= static_cast<uint64_t>(n_seq);
        std::vector<int32_t> tokens(static_cast<size_t>(n_seq), token);
        for (int32_t i = 0; i < args.n_gen; ++i) {
            start = Clock::now();
            batch.feed(tokens);
            std::ranges::transform(batch.sessions(), tokens.begin(),
                                   [](const Session * one) { return likeliest(one->logits()); });
            out.step_ms.push_back(ms_since(start));
        }
        uint64_t reserved = 0;
        for (const Session * one : batch.sessions()) {
            reserved += one->usage().bytes_reserved;
        }
        out.kv_bytes_peak = std::max(session.peak_kv_bytes(), reserved);
        out.rss_bytes = std::max(out.rss_bytes, resident_bytes());
        session.reset();
        const bool observed = out.keep < 1.0 || options.method_options.profile.has_value();
        if (observed && !args.bare) {
            feed(unobserved, model->info(), work);
            out.observe_ms.push_back(timings.prefill_ms - unobserved.timings().prefill_ms);
            unobserved.reset();
        }
    }
    progress.hide();
    return out;
}

/// Times of a prompt are medians of the repeats; steps are taken from all of them.
nlohmann::ordered_json line_of(const Measured & m, const SessionOptions & options, int32_t n_seq,
                               const BenchArgs & args) {
    double decode_ms = 0;
    for (const double ms : m.step_ms) {
        decode_ms += ms;
    }
    nlohmann::ordered_json line;
    line["n_prompt"] = m.n_prompt;
    line["n_seq"] = n_seq;
    line["n_gen"] = args.n_gen;
    line["method"] = options.method;
    line["keep"] = m.keep;
    line["kv_type"] = args.cache.kv_type;
    line["attention"] = options.attention_kernel ? "kernel" : "ggml";
    line["threads"] = args.model.threads();
    line["prefill_tps"] = 1e3 * m.n_prompt / quantile(m.prefill_ms, 0.5);
    line["ttft_ms"] = quantile(m.ttft_ms, 0.5);
    if (!args.bare) {
        line["observe_ms"] = quantile(m.observe_ms, 0.5);
    }
    line["plan_ms"] = quantile(m.plan_ms, 0.5);
    line["compact_ms"] = quantile(m.compact_ms, 0.5);
    line["decode_tps"] = 1e3 * n_seq * static_cast<double>(m.step_ms.size()) / decode_ms;
    line["step_ms_p50"] = quantile(m.step_ms, 0.5);
    line["step_ms_p90"] = quantile(m.step_ms, 0.9);
    line["kv_bytes"] = m.kv_bytes;
    line["kv_bytes_peak"] = m.kv_bytes_peak;
    line["rss_bytes"] = m.rss_bytes;
    return line;
}

std::string table_head() {
    return fmt::format(
        "{:>7} {:>5} {:<12} {:>5} {:>4}  {:>9} {:>9} {:>9} {:>9} {:>9}  {:>8} {:>8} {:>8}  {:>10} {:>10} {:>9}\n",
        "prompt", "batch", "method", "keep", "rows", "prefill/s", "first", "observe", "plan", "compact", "tokens/s",
        "step p50", "step p90", "KV", "KV peak", "resident");
}

std::string table_row(const nlohmann::ordered_json & line) {
    const auto ms = [&](const char * name) {
        return line.contains(name) ? format_ms(line[name].get<double>()) : std::string("-");
    };
    const auto bytes = [&](const char * name) { return format_bytes(line[name].get<uint64_t>()); };
    return fmt::format(
        "{:>7} {:>5} {:<12} {:>5.3g} {:>4}  {:>9.1f} {:>9} {:>9} {:>9} {:>9}  {:>8.2f} {:>8} {:>8}  {:>10} {:>10} "
        "{:>9}\n",
        line["n_prompt"].get<int32_t>(), line["n_seq"].get<int32_t>(), line["method"].get<std::string>(),
        line["keep"].get<double>(), line["kv_type"].get<std::string>(), line["prefill_tps"].get<double>(),
        ms("ttft_ms"), ms("observe_ms"), ms("plan_ms"), ms("compact_ms"), line["decode_tps"].get<double>(),
        ms("step_ms_p50"), ms("step_ms_p90"), bytes("kv_bytes"), bytes("kv_bytes_peak"), bytes("rss_bytes"));
}

std::vector<int32_t> numbers_of(const std::string & option, const std::string & list, int32_t max) {
    std::vector<int32_t> out;
    for (const std::string & text : split(list, ',')) {
        const auto value = parse_unsigned(text);
        if (!value || *value < 1 || std::cmp_greater(*value, max)) {
            refuse(option + " has '" + text + "'; expected whole numbers of at least 1, as in 1,4");
        }
        out.push_back(static_cast<int32_t>(*value));
    }
    return out;
}

std::vector<Work> works_of(const BenchArgs & args) {
    std::vector<Work> out;
    if (!args.images.empty()) {
        if (!args.prompt_tokens.empty()) {
            refuse("--prompt-tokens and --image exclude each other: the images make the prompt");
        }
        if (args.n_visual > 0) {
            refuse("--visual and --image exclude each other: the images' tokens are visual");
        }
        Work work;
        work.turn.text = kQuestion;
        work.turn.images.assign(args.images.begin(), args.images.end());
        for (const std::string & image : args.images) {
            static_cast<void>(load_question_image(image));  // refused before a model is loaded
        }
        return {work};
    }
    for (const int32_t n :
         numbers_of("--prompt-tokens", args.prompt_tokens.empty() ? "2048" : args.prompt_tokens, INT32_MAX / 2)) {
        if (args.n_visual > 0 && args.n_visual > n - kFirstVisual - 1) {
            refuse(fmt::format("--visual {} leaves no room for text in {} tokens; expected at most {}", args.n_visual,
                               n, std::max(0, n - kFirstVisual - 1)));
        }
        out.push_back({n, args.n_visual, {}});
    }
    return out;
}

void bench(const BenchArgs & args) {
    args.model.check(!args.images.empty());
    const std::vector<Work> works = works_of(args);
    const std::vector<int32_t> batches = numbers_of("--batch", args.batch.empty() ? "1" : args.batch, 1024);
    if (args.cache.attention == "ggml" && batches != std::vector<int32_t>{1}) {
        refuse("--batch needs the decode kernel; --attention ggml is for one sequence");
    }
    std::vector<SessionOptions> cases;
    for (const std::string & keep : split(args.method.keep, ',')) {
        MethodArgs method = args.method;
        method.keep = keep;
        static_cast<void>(args.cache.resolve(method, cases.emplace_back()));
    }
    const TerminalStyle style = TerminalStyle::of_stderr();
    Progress progress(style);
    progress.update("loading", -1.0);
    const auto model = Model::load(args.model.files());
    bool first = true;
    for (const Work & work : works) {
        for (SessionOptions & options : cases) {
            options.chat_template = args.model.chat_template;
            options.n_ctx = args.model.n_ctx;
            if (options.n_ctx == 0 &&
                work.n_tokens > 0) {  // what is measured does not depend on what it was trained for
                options.n_ctx = std::max(model->info().n_ctx_train, work.n_tokens + args.n_gen + 1);
            }
            if (!args.bare) {
                progress.update("checking", -1.0);
                check_kernel(model, options, work, *std::ranges::max_element(batches));
            }
            for (const int32_t n_seq : batches) {
                const auto line = line_of(measure(model, options, work, n_seq, args, progress), options, n_seq, args);
                if (args.json) {
                    print_out(line.dump() + "\n");
                } else {
                    print_out((first ? table_head() : "") + table_row(line));
                }
                first = false;
            }
        }
    }
}

}  // namespace

void add_bench_command(CLI::App & app) {
    CLI::App * const command = app.add_subcommand("bench", "Measure speed and memory of a prompt and of decoding");
    const auto o = std::make_shared<BenchArgs>();
    command->add_option("--prompt-tokens", o->prompt_tokens, "Lengths of the prompts, made-up text [2048]")
        ->type_name("N,...");
    add_integer(*command, "--visual", o->n_visual, 0, INT32_MAX / 2, "Of the made-up tokens, so many count as visual");
    command->add_option("--image", o->images, "Instead: a question about this image; may be repeated")
        ->type_name("FILE")
        ->expected(1)
        ->allow_extra_args(false)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    command->add_option("--batch", o->batch, "Sequences that decode together, as in 1,4,8: a case each [1]")
        ->type_name("N,...");
    add_integer(*command, "--gen", o->n_gen, 1, INT32_MAX / 2, "Tokens that are decoded behind the prompt");
    add_integer(*command, "--repeat", o->n_repeat, 1, 1000, "How often each case is measured");
    o->model.add_to(*command);
    o->cache.add_to(*command, o->method);
    command->get_option("--keep")
        ->description("Fractions of the rows kept, as in 1,0.2: a case each")
        ->type_name("R,...");
    command->add_flag("--bare", o->bare, "No check of the kernel, and no unobserved prefill beside (observe_ms)");
    command->add_flag("--json", o->json, "JSON lines instead of a table");
    command->callback([o] { bench(*o); });
}
