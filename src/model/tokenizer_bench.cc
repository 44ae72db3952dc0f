// SPDX-License-Identifier: Apache-2.0
// How fast one thread encodes: tokenizer_bench TOKENIZER TEXT [ROUNDS]
// TOKENIZER is a .gguf, a tokenizer.json, Meta's tokenizer.model or a folder. Prints MB/s (1e6
// bytes) of the best and the median round for the whole text in one call and for one call per line.
#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "formats/gguf.h"
#include "model/tokenizer.h"

namespace puna::model {
namespace {

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.size()};
}

Result<Tokenizer> load(const std::string& path) {
  if (path.ends_with(".gguf")) {
    ASSIGN_OR_RETURN(const formats::GgufFile file, formats::GgufFile::open(path));
    return Tokenizer::from_gguf(file);
  }
  if (!path.ends_with(".json") && !path.ends_with(".model"))
    return Tokenizer::load({.folder = path});
  ASSIGN_OR_RETURN(const MappedFile file, MappedFile::open(path));
  return path.ends_with(".json") ? Tokenizer::from_tokenizer_json(text_of(file))
                                 : Tokenizer::from_tiktoken(text_of(file));
}

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t length = std::min(text.find('\n'), text.size() - 1) + 1;
    lines.push_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return lines;
}

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void measure(std::string_view name, const Tokenizer& tokenizer,
             const std::vector<std::string_view>& texts, int rounds) {
  size_t bytes = 0;
  for (const std::string_view text : texts) bytes += text.size();
  std::vector<double> seconds;
  size_t tokens = 0;
  for (int round = 0; round < std::max(rounds, 1); ++round) {
    tokens = 0;
    const auto begin = std::chrono::steady_clock::now();
    for (const std::string_view text : texts) tokens += tokenizer.encode(text).size();
    seconds.push_back(seconds_since(begin));
  }
  std::sort(seconds.begin(), seconds.end());
  const auto megabytes = static_cast<double>(bytes) / 1e6;
  fmt::print("{}: {} bytes, {} tokens, best {:.1f} MB/s, median {:.1f} MB/s\n", name, bytes, tokens,
             megabytes / seconds.front(), megabytes / seconds[seconds.size() / 2]);
}

int run(int argc, char** argv) {
  if (argc < 3 || argc > 4) {
    fmt::print(stderr, "usage: tokenizer_bench TOKENIZER TEXT [ROUNDS]\n");
    return 2;
  }
  int rounds = 5;
  if (argc == 4) std::from_chars(argv[3], argv[3] + std::strlen(argv[3]), rounds);
  const auto begin = std::chrono::steady_clock::now();
  const auto tokenizer = load(argv[1]);
  const double load_seconds = seconds_since(begin);
  const auto text = MappedFile::open(argv[2]);
  for (const Error* error :
       {tokenizer.ok() ? nullptr : &tokenizer.error(), text.ok() ? nullptr : &text.error()}) {
    if (error == nullptr) continue;
    fmt::print(stderr, "tokenizer_bench: {}\n", error->message());
    return 2;
  }
  fmt::print("load: {:.0f} ms\n", load_seconds * 1e3);
  measure("whole", *tokenizer, {text_of(*text)}, rounds);
  measure("lines", *tokenizer, lines_of(text_of(*text)), rounds);
  return 0;
}

}  // namespace
}  // namespace puna::model

int main(int argc, char** argv) { return puna::model::run(argc, argv); }
