// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/tuning_store.h"

#include <cctype>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <optional>
#include <system_error>

#include "base/hash.h"
#include "base/whole_file.h"

namespace puna::kernels::cuda {
namespace {

constexpr std::string_view kFormat = "puna tuning 1";
constexpr std::string_view kEnd = "end";
constexpr size_t kMostBytes = 1 << 20;  // of a file: a thousand row counts

// What is before the next `separator`, which goes too.
std::string_view take_until(std::string_view& text, char separator) {
  const size_t end = text.find(separator);
  const std::string_view taken = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return taken;
}

template <typename Number>
std::optional<Number> parse(std::string_view text, int base) {
  Number value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// "16 a0 1f": 16 rows, two words.
std::optional<TunedRows> parse_line(std::string_view line) {
  const auto rows = parse<int32_t>(take_until(line, ' '), 10);
  if (!rows || *rows <= 0) return std::nullopt;
  TunedRows tuned{*rows, {}};
  while (!line.empty()) {
    const auto word = parse<uint64_t>(take_until(line, ' '), 16);
    if (!word) return std::nullopt;
    tuned.choice.push_back(*word);
  }
  return tuned;
}

}  // namespace

std::string TuningStore::header(std::string_view subject) const {
  return fmt::format("{}\n{}\n{}\n", kFormat, machine_, subject);
}

std::string TuningStore::path_of(std::string_view subject) const {
  std::string name;
  for (const char c : subject) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) {
      name += c;
    } else if (!name.empty() && name.back() != '-') {
      name += '-';
    }
  }
  return fmt::format("{}/{}-{:016x}.txt", folder_, name, fnv1a(header(subject)));
}

std::vector<TunedRows> TuningStore::recall(std::string_view subject) const {
  if (folder_.empty()) return {};
  std::ifstream file(path_of(subject), std::ios::binary);
  if (!file) return {};
  std::string bytes(kMostBytes, '\0');
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  bytes.resize(static_cast<size_t>(file.gcount()));
  std::string_view text = bytes;
  const std::string expected = header(subject);
  if (!text.starts_with(expected)) return {};
  text.remove_prefix(expected.size());
  std::vector<TunedRows> result;
  while (!text.empty()) {
    const std::string_view line = take_until(text, '\n');
    if (line == kEnd) return result;
    auto tuned = parse_line(line);
    if (!tuned || (!result.empty() && tuned->rows <= result.back().rows)) return {};
    result.push_back(std::move(*tuned));
  }
  return {};  // it was cut off
}

void TuningStore::keep(std::string_view subject, std::span<const TunedRows> rows) {
  if (folder_.empty()) return;
  if (const Result<> written = write(subject, rows); !written.ok())
    problem_ = written.error().message();
}

Result<> TuningStore::write(std::string_view subject, std::span<const TunedRows> rows) const {
  std::string text = header(subject);
  for (const TunedRows& tuned : rows) {
    text += std::to_string(tuned.rows);
    for (const uint64_t word : tuned.choice) text += fmt::format(" {:x}", word);
    text += '\n';
  }
  text.append(kEnd).append("\n");
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  if (error) {
    return Error(ErrorCode::kIo, "{}: the folder can't be made: {}", folder_, error.message());
  }
  return write_whole_file(path_of(subject), text);
}

}  // namespace puna::kernels::cuda
