// SPDX-License-Identifier: Apache-2.0
// GPT-2's byte alphabet: printable Latin-1 characters stand for themselves, the other 68 bytes for
// U+0100 and up, in order.
#include <array>

#include "model/tokenizer_parts.h"
#include "model/utf8.h"

namespace puna::model {
namespace {

constexpr uint32_t kAlphabetEnd = 0x100 + 68;

constexpr bool stands_for_itself(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr std::array<int16_t, kAlphabetEnd> make_alphabet() {
  std::array<int16_t, kAlphabetEnd> byte_of{};
  for (int16_t& byte : byte_of) byte = -1;
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    byte_of[stands_for_itself(byte) ? byte : next++] = static_cast<int16_t>(byte);
  }
  return byte_of;
}
constexpr std::array<int16_t, kAlphabetEnd> kByteOf = make_alphabet();

void append_utf8(uint32_t code_point, std::string& out) {  // below 0x800
  if (code_point < 0x80) {
    out.push_back(static_cast<char>(code_point));
    return;
  }
  out.push_back(static_cast<char>(0xC0 | (code_point >> 6)));
  out.push_back(static_cast<char>(0x80 | (code_point & 0x3F)));
}

constexpr std::array<uint16_t, 256> make_spelling() {
  std::array<uint16_t, 256> code_point_of{};
  for (uint32_t code_point = 0; code_point < kAlphabetEnd; ++code_point) {
    const int16_t byte = kByteOf[code_point];
    if (byte >= 0) code_point_of[static_cast<size_t>(byte)] = static_cast<uint16_t>(code_point);
  }
  return code_point_of;
}
constexpr std::array<uint16_t, 256> kSpellingOf = make_spelling();

}  // namespace

std::string spelling_of(std::string_view bytes) {
  std::string name;
  for (const char byte : bytes) append_utf8(kSpellingOf[static_cast<uint8_t>(byte)], name);
  return name;
}

std::optional<std::string> spelled_bytes(std::string_view name) {
  std::string bytes;
  bytes.reserve(name.size());
  for (size_t at = 0; at < name.size();) {
    const Utf8Char next = utf8_char_at(name, at);
    if (next.status != Utf8Char::Status::kValid || next.code_point >= kAlphabetEnd)
      return std::nullopt;
    const int16_t byte = kByteOf[next.code_point];
    if (byte < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(byte));
    at += next.length;
  }
  return bytes;
}

}  // namespace puna::model
