// SPDX-License-Identifier: Apache-2.0
// Tests only: reads tests/golden/tokenizer (written by tools/golden/make_tokenizer_golden.py).
#pragma once

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "model/tokenizer.h"
#include "model/utf8.h"

namespace puna::model {

inline std::string read_whole_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  CHECK(file.good());
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline std::string golden_path(std::string_view name) {
  return std::string(PUNA_GOLDEN_DIR) + "/tokenizer/" + std::string(name);
}

inline std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

inline bool utf8_is_whole(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Utf8Char next = utf8_char_at(text, at);
    if (next.status != Utf8Char::Status::kValid) return false;
    at += next.length;
  }
  return true;
}

// LEB128 numbers one after the other.
class GoldenReader {
 public:
  explicit GoldenReader(std::string data) : data_(std::move(data)) {}

  uint64_t number() {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<uint8_t>(data_.at(at_++));
      value |= uint64_t{byte & 0x7FU} << shift;
      if (byte < 0x80) return value;
    }
  }
  std::string bytes(size_t count) {
    CHECK(count <= data_.size() - at_);
    at_ += count;
    return data_.substr(at_ - count, count);
  }

 private:
  std::string data_;
  size_t at_ = 0;
};

inline std::vector<std::string> golden_strings() {
  GoldenReader reader(read_whole_file(golden_path("strings.bin")));
  std::vector<std::string> strings(reader.number());
  for (std::string& text : strings) text = reader.bytes(reader.number());
  return strings;
}

// What an oracle made of each string; nothing where it was not asked.
inline std::vector<std::optional<std::vector<TokenId>>> golden_ids(std::string_view name) {
  GoldenReader reader(read_whole_file(golden_path(name)));
  std::vector<std::optional<std::vector<TokenId>>> results(reader.number());
  for (auto& ids : results) {
    const uint64_t count = reader.number();
    if (count == 0) continue;
    ids.emplace();
    for (uint64_t i = 1; i < count; ++i) ids->push_back(static_cast<TokenId>(reader.number()));
  }
  return results;
}

}  // namespace puna::model
