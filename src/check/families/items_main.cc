// SPDX-License-Identifier: Apache-2.0
// puna_items: prints generated items as JSON Lines, and scores answers to them. For trainers
// (tools/train_check_model).
#include <fmt/core.h>

#include <charconv>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "check/families/item_lines.h"

namespace puna::check {
namespace {

constexpr std::string_view kUsage =
    "usage: puna_items make FAMILY SEED COUNT DIFFICULTY [train]\n"
    "       puna_items score ANSWERS.jsonl\n"
    "`train` sets the seed's top bit: items that no check ever asks.\n";

std::optional<uint64_t> number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

int usage() {
  fmt::print(stderr, "{}", kUsage);
  return 2;
}

int make(int argc, char** argv) {
  const bool is_training = argc == 7 && std::strcmp(argv[6], "train") == 0;
  if (argc != 6 && !is_training) return usage();
  const auto family = family_named(argv[2]);
  const auto seed = number(argv[3]);
  const auto count = number(argv[4]);
  const auto difficulty = number(argv[5]);
  if (!family || !seed || !count || *count > INT32_MAX || !difficulty ||
      *difficulty > kMaxDifficulty) {
    return usage();
  }
  for (int32_t index = 0; index < static_cast<int32_t>(*count); ++index) {
    const uint64_t whole_seed = is_training ? *seed | kTrainingSeedBit : *seed;
    const ItemRequest request = {*family, whole_seed, index, static_cast<int32_t>(*difficulty)};
    fmt::print("{}\n", item_line(make_item(request)));
  }
  return 0;
}

int score_file(const std::string& path) {
  const auto rows = score_answers(path);
  if (!rows.ok()) {
    fmt::print(stderr, "puna_items: {}\n", rows.error().message());
    return 1;
  }
  for (const FamilyScore& row : *rows) {
    fmt::print("{:<13} difficulty {}  {:>5} of {:>5}  {:5.1f} %  {}\n", name(row.family),
               row.difficulty, row.correct, row.items,
               100.0 * static_cast<double>(row.correct) / static_cast<double>(row.items),
               row.first_fault.substr(0, 70));
  }
  return 0;
}

}  // namespace
}  // namespace puna::check

int main(int argc, char** argv) {
  if (argc >= 2 && std::strcmp(argv[1], "make") == 0) return puna::check::make(argc, argv);
  if (argc == 3 && std::strcmp(argv[1], "score") == 0) return puna::check::score_file(argv[2]);
  return puna::check::usage();
}
