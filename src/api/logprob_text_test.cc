// SPDX-License-Identifier: Apache-2.0
// Logprobs in OpenAI's two shapes, with tokens that are pieces of characters; and API keys.
#include "api/logprob_text.h"

#include <gtest/gtest.h>

#include "engine/solo_run.h"

namespace puna::api {
namespace {

using engine::TokenEvent;
using engine::TokenLogprob;

struct LogprobTextTest : testing::Test {
  model::Tokenizer tokenizer = engine::tiny_tokenizer();

  std::string pieces(LogprobText::Shape shape, std::string_view bytes) {
    LogprobText text(shape, tokenizer);
    for (const char c : bytes) {
      const TokenId token = static_cast<uint8_t>(c);
      const TokenLogprob top[] = {{.token = 'z', .logprob = -0.25F}};
      text.append({.token = token, .logprob = -0.5F, .num_top = 1}, top, /*in_text=*/true);
    }
    std::string out;
    text.take(out);
    EXPECT_TRUE(text.empty());
    return out;
  }
  using TokenId = model::TokenId;
};

TEST_F(LogprobTextTest, ChatNamesTokensAndBytes) {
  EXPECT_EQ(pieces(LogprobText::Shape::kChat, "a\xC3"),
            R"({"content":[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[)"
            R"({"token":"z","logprob":-0.25,"bytes":[122]}]},{"token":"\\xc3","logprob":-0.5,)"
            R"("bytes":[195],"top_logprobs":[{"token":"z","logprob":-0.25,"bytes":[122]}]}],)"
            R"("refusal":null})");
}

TEST_F(LogprobTextTest, CompletionsCountCharacters) {
  EXPECT_EQ(
      pieces(LogprobText::Shape::kCompletion, "é€a"),
      R"({"tokens":["bytes:\\xc3","bytes:\\xa9","bytes:\\xe2","bytes:\\x82","bytes:\\xac","a"],)"
      R"("token_logprobs":[-0.5,-0.5,-0.5,-0.5,-0.5,-0.5],"top_logprobs":[)"
      R"({"z":-0.25,"bytes:\\xc3":-0.5},{"z":-0.25,"bytes:\\xa9":-0.5},)"
      R"({"z":-0.25,"bytes:\\xe2":-0.5},{"z":-0.25,"bytes:\\x82":-0.5},)"
      R"({"z":-0.25,"bytes:\\xac":-0.5},{"z":-0.25,"a":-0.5}],"text_offset":[0,0,1,1,1,2]})");
}

TEST_F(LogprobTextTest, ListedTokensAndImpossibleOnes) {
  LogprobText text(LogprobText::Shape::kCompletion, tokenizer);
  const TokenLogprob top[] = {{.token = 'a', .logprob = -0.5F},
                              {.token = 'b', .logprob = -std::numeric_limits<float>::infinity()}};
  text.append({.token = 'a', .logprob = -0.5F, .num_top = 2}, top, true);
  std::string out;
  text.take(out);
  EXPECT_NE(out.find(R"("top_logprobs":[{"a":-0.5,"b":-9999}])"), std::string::npos) << out;
}

}  // namespace
}  // namespace puna::api
