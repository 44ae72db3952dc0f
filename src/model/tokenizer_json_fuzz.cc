// SPDX-License-Identifier: Apache-2.0
// Any tokenizer.json either fails with an error or gives a tokenizer that works. The input is a
// tokenizer.json, then optionally a 0xFF byte and a text to encode.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "model/chat_template.h"
#include "model/text_stream.h"
#include "model/tokenizer.h"

namespace puna::model {
namespace {

bool has_every_byte(const Tokenizer& tokenizer) {
  for (int byte = 0; byte < 256; ++byte) {
    const char text = static_cast<char>(byte);
    const auto id = tokenizer.find({&text, 1});
    // An added token of one byte hides whether there is a word too.
    if (!id || tokenizer.encode({&text, 1}).empty()) return false;
  }
  return true;
}

void use(const Tokenizer& tokenizer, std::string_view text) {
  for (const bool parse_special : {false, true}) {
    const auto ids = tokenizer.encode(text, {.add_bos = false, .parse_special = parse_special});
    for (const TokenId id : ids) CHECK(id >= 0 && id < tokenizer.vocab_size());
    const std::string decoded = tokenizer.decode(ids, /*skip_special=*/false);
    CHECK_LE(decoded.size(), text.size());
    if (has_every_byte(tokenizer)) CHECK_EQ(decoded, text);
    TextStream stream(tokenizer, {"\n", "ab"});
    for (const TokenId id : ids) stream.push(id);
    stream.flush();
  }
  for (const TokenId id : tokenizer.end_of_generation()) CHECK_LT(id, tokenizer.vocab_size());
  (void)ChatTemplate::choose("", tokenizer).ok();
}

}  // namespace
}  // namespace puna::model

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t border = input.find('\xFF');
  const std::string_view text =
      border == std::string_view::npos ? input.substr(0, 200) : input.substr(border + 1);
  auto tokenizer = puna::model::Tokenizer::from_tokenizer_json(input.substr(0, border));
  if (tokenizer.ok()) puna::model::use(*tokenizer, text);
  (void)puna::model::ChatTemplate::recognise(text).ok();
  return 0;
}
