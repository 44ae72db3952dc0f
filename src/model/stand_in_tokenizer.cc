// SPDX-License-Identifier: Apache-2.0
#include "model/stand_in_tokenizer.h"

#include <fmt/format.h>

#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>

namespace puna::model {
namespace {

constexpr int32_t kWords = 128000;
constexpr int32_t kBytes = 256;
constexpr std::string_view kLetters = " etaoinshrdlcumwfgypbvkjxqz";  // the usual ones first

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t bits = 0;
    for (size_t k = 0; k < 3; ++k)
      bits = bits << 8 | (i + k < bytes.size() ? static_cast<uint8_t>(bytes[i + k]) : 0U);
    for (size_t k = 0; k < 4; ++k)
      text += k <= bytes.size() - i ? kDigits[bits >> (18 - 6 * k) & 0x3F] : '=';
  }
  return text;
}

// The number-th string of at least two letters, a space only in front: a word's beginning.
std::string word(uint32_t number) {
  const auto letters = static_cast<uint32_t>(kLetters.size());
  uint32_t of_length = letters * (letters - 1);
  size_t length = 2;
  while (number >= of_length) {
    number -= of_length;
    of_length *= letters - 1;
    ++length;
  }
  std::string text;
  for (size_t i = 1; i < length; ++i) {
    text.insert(text.begin(), kLetters[1 + number % (letters - 1)]);
    number /= letters - 1;
  }
  text.insert(text.begin(), kLetters[number]);
  return text;
}

}  // namespace

Result<Tokenizer> stand_in_tokenizer() {
  std::string text;
  for (int32_t id = 0; id < kWords; ++id) {
    const std::string bytes = id < kBytes ? std::string(1, static_cast<char>(id))
                                          : word(static_cast<uint32_t>(id - kBytes));
    fmt::format_to(std::back_inserter(text), "{} {}\n", base64(bytes), id);
  }
  return Tokenizer::from_tiktoken(text);
}

}  // namespace puna::model
