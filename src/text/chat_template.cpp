// SPDX-License-Identifier: MIT
#include "text/chat_template.h"

#include <llama.h>

#include <algorithm>
#include <limits>

#include "kvsieve/error.h"

namespace kvsieve {
namespace {

// Stands for an answer while a follow-up is rendered; no template trims or changes it.
constexpr std::string_view kAnswerMark = "kvsieve-answer-5b1f0c";

std::string joined(const std::vector<std::string> & names) {
    std::string text;
    for (const std::string & name : names) {
        text += text.empty() ? name : ", " + name;
    }
    return text;
}

// -1 from libllama, as an empty answer.
bool apply(const std::string & source, std::span<const ChatMessage> messages, bool add_assistant, std::string & out) {
    std::vector<llama_chat_message> chat;
    chat.reserve(messages.size());
    size_t guess = 256;
    for (const ChatMessage & message : messages) {
        chat.push_back({message.role.c_str(), message.content.c_str()});
        guess += 64 + message.content.size();
    }
    if (guess > static_cast<size_t>(std::numeric_limits<int32_t>::max()) / 2) {
        throw Error(ErrorCode::too_large,
                    "the conversation has " + std::to_string(guess) + " bytes, expected less than 1 GiB");
    }
    out.resize(guess);
    const auto run = [&] {
        return llama_chat_apply_template(source.c_str(), chat.data(), chat.size(), add_assistant, out.data(),
                                         static_cast<int32_t>(out.size()));
    };
    int32_t n = run();
    if (n > static_cast<int32_t>(out.size())) {
        out.resize(static_cast<size_t>(n));
        n = run();
    }
    if (n < 0) {
        return false;
    }
    out.resize(static_cast<size_t>(n));
    return true;
}

}  // namespace

std::vector<std::string> known_chat_templates() {
    std::vector<const char *> names(static_cast<size_t>(llama_chat_builtin_templates(nullptr, 0)));
    llama_chat_builtin_templates(names.data(), names.size());
    return {names.begin(), names.end()};
}

ChatTemplate::ChatTemplate(std::string_view own, std::string_view name) : template_(name.empty() ? own : name) {
    if (name == "raw" || name == "none") {
        raw_ = true;
        return;
    }
    if (!name.empty()) {
        const std::vector<std::string> known = known_chat_templates();
        if (std::find(known.begin(), known.end(), name) == known.end()) {
            throw Error(ErrorCode::invalid_argument, "there is no chat template '" + std::string(name) +
                                                         "'; --chat-template takes raw, " + joined(known));
        }
        return;
    }
    if (own.empty()) {
        throw Error(ErrorCode::bad_input,
                    "the model has no chat template; name one with --chat-template, raw for none, or one of " +
                        joined(known_chat_templates()));
    }
    std::string probe;
    const std::vector<ChatMessage> messages = {{"user", "x"}};
    if (!apply(template_, messages, true, probe)) {
        throw Error(ErrorCode::bad_input,
                    "libllama does not know the model's own chat template; name a similar one with --chat-template, "
                    "raw for none, or one of " +
                        joined(known_chat_templates()));
    }
}

std::string ChatTemplate::render(std::span<const ChatMessage> messages, bool add_assistant) const {
    std::string out;
    if (raw_) {
        for (const ChatMessage & message : messages) {
            out += message.content;
        }
        return out;
    }
    for (const ChatMessage & message : messages) {
        if (message.content.find('\0') != std::string::npos) {
            throw Error(ErrorCode::invalid_argument,
                        "a message of the " + message.role + " has a zero byte in its text");
        }
    }
    if (!apply(template_, messages, add_assistant, out)) {
        throw Error(ErrorCode::invalid_argument, "the chat template cannot render this conversation");
    }
    return out;
}

std::string ChatTemplate::render_follow_up(std::span<const ChatMessage> history, const ChatMessage & next) const {
    if (raw_) {
        return next.content;
    }
    std::vector<ChatMessage> messages(history.begin(), history.end());
    messages.push_back({"assistant", std::string(kAnswerMark)});
    messages.push_back(next);
    const std::string all = render(messages, true);
    const std::string before = render(history, true);
    const size_t mark = all.find(kAnswerMark);
    // Templates may put a space between the opening and the answer; the answer in the cache begins at once.
    if (mark == std::string::npos || all.find(kAnswerMark, mark + 1) != std::string::npos || !all.starts_with(before) ||
        mark < before.size()) {
        throw Error(ErrorCode::invalid_argument,
                    "this chat template renders a conversation anew at every turn, so a second question cannot be "
                    "added to what is in the cache; use --chat-template with another name, or raw");
    }
    return all.substr(mark + kAnswerMark.size());
}

}  // namespace kvsieve
