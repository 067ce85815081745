// SPDX-License-Identifier: MIT
// Chat messages to a prompt text, with the templates that libllama knows (a fixed list, no Jinja).
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvsieve {

struct ChatMessage {
    std::string role;  ///< "system", "user" or "assistant"
    std::string content;
};

/// Immutable and thread-safe.
class ChatTemplate {
  public:
    /// `name`: "" = `own` (the template text in the model's file), "raw" or "none" = messages as they are, or a name of
    /// known_chat_templates(). Throws Error{invalid_argument} for an unknown name and Error{bad_input} where the
    /// model's own template is missing or not known to libllama; both name --chat-template.
    ChatTemplate(std::string_view own, std::string_view name);

    [[nodiscard]] bool is_raw() const { return raw_; }
    /// The whole conversation; `add_assistant` opens the answer.
    [[nodiscard]] std::string render(std::span<const ChatMessage> messages, bool add_assistant) const;
    /// What follows the bytes of an answer already in the cache: the end of the assistant's turn, `next` and the
    /// opening of the next answer. `history` is everything before that answer, as rendered with `add_assistant`;
    /// the answer's own end-of-turn token must not be in the cache.
    [[nodiscard]] std::string render_follow_up(std::span<const ChatMessage> history, const ChatMessage & next) const;

  private:
    std::string template_;
    bool raw_ = false;
};

[[nodiscard]] std::vector<std::string> known_chat_templates();

}  // namespace kvsieve
