// SPDX-License-Identifier: Apache-2.0
// Meta's tokenizer.model for Llama 3: a text file, one line "base64-bytes rank" per token.
// The special tokens are not in the file. Source of their names: Llama 3.1 model card and prompt
// formats.
#include <fmt/format.h>

#include <array>
#include <charconv>

#include "model/tokenizer_parts.h"

namespace puna::model {
namespace {

constexpr int kSpecialTokens = 256;
constexpr std::array<std::string_view, 11> kNamedSpecials = {
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|reserved_special_token_2|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
};
constexpr size_t kBeginOfText = 0;
constexpr size_t kEndOfText = 1;

constexpr std::array<int8_t, 256> make_base64_values() {
  std::array<int8_t, 256> values{};
  for (int8_t& value : values) value = -1;
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < kDigits.size(); ++i) {
    values[static_cast<uint8_t>(kDigits[i])] = static_cast<int8_t>(i);
  }
  return values;
}
constexpr std::array<int8_t, 256> kBase64Values = make_base64_values();

std::optional<std::string> decode_base64(std::string_view text) {
  if (text.empty() || text.size() % 4 != 0) return std::nullopt;
  size_t padding = 0;
  while (padding < 2 && text.ends_with('=')) text.remove_suffix(1), ++padding;
  std::string bytes;
  uint32_t bits = 0;
  int bit_count = 0;
  for (const char digit : text) {
    const int8_t value = kBase64Values[static_cast<uint8_t>(digit)];
    if (value < 0) return std::nullopt;
    bits = (bits << 6) | static_cast<uint32_t>(value);
    bit_count += 6;
    if (bit_count < 8) continue;
    bit_count -= 8;
    bytes.push_back(static_cast<char>((bits >> bit_count) & 0xFFU));
  }
  // What is left over must be zero, or two spellings would mean the same bytes.
  if ((bits & ((1U << bit_count) - 1)) != 0) return std::nullopt;
  return bytes;
}

Error line_error(size_t line, std::string_view problem) {
  return Error(ErrorCode::kCorrupt,
               "line {}: {}; a line is \"base64-bytes rank\" (Meta's Llama 3 "
               "tokenizer.model; SentencePiece files are not supported)",
               line, problem);
}

Result<> read_line(std::string_view line, size_t number, std::vector<TokenPart>& tokens) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  const size_t space = line.find(' ');
  if (space == std::string_view::npos) return line_error(number, "no space in it");
  auto bytes = decode_base64(line.substr(0, space));
  if (!bytes) return line_error(number, "its first word is no base64");
  const std::string_view digits = line.substr(space + 1);
  size_t rank = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), rank);
  if (digits.empty() || parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size()) {
    return line_error(number, "its rank is no number");
  }
  if (rank != tokens.size()) {
    return line_error(number, fmt::format("its rank is {}, expected {}", rank, tokens.size()));
  }
  if (tokens.size() + kSpecialTokens >= kMaxVocabulary) {
    return Error(ErrorCode::kUnsupported, "more than {} tokens", kMaxVocabulary);
  }
  tokens.push_back({.bytes = std::move(*bytes), .is_word = true});
  return Ok{};
}

void add_special_tokens(std::vector<TokenPart>& tokens) {
  int reserved = 3;  // 0, 1 and 2 are among the named ones
  for (size_t i = 0; i < kSpecialTokens; ++i) {
    std::string name = i < kNamedSpecials.size()
                           ? std::string(kNamedSpecials[i])
                           : fmt::format("<|reserved_special_token_{}|>", reserved++);
    tokens.push_back({.bytes = std::move(name), .is_added = true, .is_special = true});
  }
}

}  // namespace

Result<TokenizerParts> read_tiktoken(std::string_view text) {
  TokenizerParts parts;
  size_t number = 0;
  while (!text.empty()) {
    const size_t newline = text.find('\n');
    const std::string_view line = text.substr(0, newline);
    text.remove_prefix(newline == std::string_view::npos ? text.size() : newline + 1);
    ++number;
    if (line.empty()) continue;
    RETURN_IF_ERROR(read_line(line, number, parts.tokens));
  }
  std::array<bool, 256> has_byte{};
  for (const TokenPart& token : parts.tokens) {
    if (token.bytes.size() == 1) has_byte[static_cast<uint8_t>(token.bytes[0])] = true;
  }
  for (size_t byte = 0; byte < has_byte.size(); ++byte) {
    if (!has_byte[byte]) return Error(ErrorCode::kCorrupt, "no token for the byte 0x{:02X}", byte);
  }
  const size_t word_count = parts.tokens.size();
  add_special_tokens(parts.tokens);
  parts.pretokenizer = PretokenizerKind::kLlama3;
  parts.merges_by_id = true;
  parts.words_first = true;
  parts.bos = static_cast<TokenId>(word_count + kBeginOfText);
  parts.eos = static_cast<TokenId>(word_count + kEndOfText);
  parts.adds_bos = true;
  return parts;
}

}  // namespace puna::model
