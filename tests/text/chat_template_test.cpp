// SPDX-License-Identifier: MIT
#include "text/chat_template.h"

#include <gtest/gtest.h>
#include <llama.h>

#include "support/expect_error.h"
#include "text/text_model.h"

namespace kvsieve {
namespace {

using test::expect_error;

const std::filesystem::path kModel = std::filesystem::path(KVSIEVE_MODELS_DIR) / "kvsieve-tiny-model-f16.gguf";

TEST(ChatTemplate, RendersTheModelsOwn) {
    const TextModel text{GgufFile(kModel)};
    const ChatTemplate chat(text.own_template(), "");
    const std::vector<ChatMessage> messages = {{"system", "Be brief."}, {"user", "Hi"}};
    EXPECT_EQ(chat.render(messages, true),
              "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    EXPECT_EQ(chat.render(messages, false),
              "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n");
    const ChatTemplate named("", "chatml");
    EXPECT_EQ(named.render(messages, true), chat.render(messages, true));
}

TEST(ChatTemplate, RendersLongMessagesWhole) {
    const ChatTemplate chat("", "chatml");
    const std::string content(100000, 'x');
    const std::vector<ChatMessage> messages = {{"user", content}};
    EXPECT_EQ(chat.render(messages, false), "<|im_start|>user\n" + content + "<|im_end|>\n");
    // A template that repeats more than its contents: many short messages.
    const std::vector<ChatMessage> many(3000, ChatMessage{"user", "y"});
    EXPECT_EQ(chat.render(many, false).size(), many.size() * std::string("<|im_start|>user\ny<|im_end|>\n").size());
}

TEST(ChatTemplate, RawIsTheTextAsItIs) {
    const ChatTemplate chat("{{ unknown }}", "raw");
    EXPECT_TRUE(chat.is_raw());
    const std::vector<ChatMessage> messages = {{"user", " Hi <|im_end|> "}};
    EXPECT_EQ(chat.render(messages, true), " Hi <|im_end|> ");
    EXPECT_EQ(chat.render_follow_up(messages, {"user", "more"}), "more");
}

TEST(ChatTemplate, RefusesWhatLibllamaDoesNotKnow) {
    expect_error(ErrorCode::invalid_argument, "there is no chat template 'nonsense'; --chat-template takes raw, ",
                 [] { ChatTemplate chat("", "nonsense"); });
    expect_error(ErrorCode::bad_input,
                 "libllama does not know the model's own chat template; name a similar one with "
                 "--chat-template",
                 [] { ChatTemplate chat("{{ messages[0] }}", ""); });
    expect_error(ErrorCode::bad_input, "the model has no chat template; name one with --chat-template",
                 [] { ChatTemplate chat("", ""); });
    expect_error(ErrorCode::invalid_argument, "zero byte", [] {
        const std::vector<ChatMessage> messages = {{"user", std::string("a\0b", 3)}};
        (void)ChatTemplate("", "chatml").render(messages, true);
    });
}

TEST(ChatTemplate, FollowUpContinuesTheCache) {
    const ChatTemplate chat("", "chatml");
    std::vector<ChatMessage> history = {{"user", "one"}};
    const std::string suffix = chat.render_follow_up(history, {"user", "two"});
    EXPECT_EQ(suffix, "<|im_end|>\n<|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\n");
    // First turn + answer + suffix is what rendering everything at once gives.
    const std::string cached = chat.render(history, true) + "an answer" + suffix;
    history.push_back({"assistant", "an answer"});
    history.push_back({"user", "two"});
    EXPECT_EQ(cached, chat.render(history, true));
}

// Each of libllama's templates either continues or says that it cannot; where it continues, the pieces add up to
// the whole but for white space around the answer.
TEST(ChatTemplate, FollowUpOfEveryTemplate) {
    const std::vector<std::string> names = known_chat_templates();
    ASSERT_GT(names.size(), 20U);
    const auto dense = [](std::string text) {
        std::erase_if(text, [](char c) { return c == ' ' || c == '\n'; });
        return text;
    };
    size_t continued = 0;
    for (const std::string & name : names) {
        const ChatTemplate chat("", name);
        std::vector<ChatMessage> history = {{"user", "one"}};
        std::string suffix;
        try {
            suffix = chat.render_follow_up(history, {"user", "two"});
        } catch (const Error & error) {
            EXPECT_NE(std::string(error.what()).find("--chat-template"), std::string::npos);
            continue;
        }
        ++continued;
        const std::string cached = chat.render(history, true) + "answer" + suffix;
        history.push_back({"assistant", "answer"});
        history.push_back({"user", "two"});
        // With these the model itself writes the rest of the opening, as part of its answer.
        if (name != "gpt-oss" && name != "solar-open" && name != "hunyuan-dense") {
            EXPECT_EQ(dense(cached), dense(chat.render(history, true))) << name;
        }
    }
    EXPECT_GT(continued, names.size() * 3 / 4);
}

}  // namespace
}  // namespace kvsieve
