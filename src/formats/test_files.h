// SPDX-License-Identifier: Apache-2.0
// Files for the tests of this folder: golden files, a scratch folder, and bytes put together by
// hand.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <string_view>

namespace puna::formats {

inline std::string golden(const std::string& name) {
  return std::string(PUNA_GOLDEN_DIR) + "/" + name;
}

inline std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void write_text(const std::string& path, std::string_view text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(text.data(), static_cast<std::streamsize>(text.size()));
  EXPECT_TRUE(file.good()) << path;
}

inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// A value's bytes as a file has them.
template <typename T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof(T)};
}

// A folder that is gone after the test.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "puna_formats_XXXXXX").string();
    EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
    path_ = pattern;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// Expects an error whose one-line message holds `part`.
#define EXPECT_REFUSED(result, expected_code, part)                                  \
  do {                                                                               \
    const auto& refused = (result);                                                  \
    ASSERT_FALSE(refused.ok());                                                      \
    EXPECT_EQ(refused.error().code(), (expected_code)) << refused.error().message(); \
    EXPECT_NE(refused.error().message().find(part), std::string::npos)               \
        << refused.error().message();                                                \
    EXPECT_EQ(refused.error().message().find('\n'), std::string::npos)               \
        << refused.error().message();                                                \
  } while (false)

}  // namespace puna::formats
