// SPDX-License-Identifier: Apache-2.0
#include "model/pretokenizer.h"

#include "model/unicode_tables.h"
#include "model/utf8.h"

namespace puna::model {
namespace {

// The patterns as model files spell them.
constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

struct ClassedChar {
  CharClass char_class;
  uint32_t length;  // bytes
};

ClassedChar char_at(std::string_view text, size_t position) {
  const auto first = static_cast<uint8_t>(text[position]);
  if (first < 0x80) return {char_class(first), 1};
  const Utf8Char decoded = utf8_char_at(text, position);
  if (decoded.status != Utf8Char::Status::kValid) return {CharClass::kOther, 1};
  return {char_class(decoded.code_point), decoded.length};
}

bool is_class_at(std::string_view text, size_t position, CharClass wanted) {
  return position < text.size() && char_at(text, position).char_class == wanted;
}

bool is_newline_at(std::string_view text, size_t position) {
  return position < text.size() && (text[position] == '\n' || text[position] == '\r');
}

size_t run_end(std::string_view text, size_t position, CharClass wanted) {
  while (position < text.size()) {
    const ClassedChar next = char_at(text, position);
    if (next.char_class != wanted) break;
    position += next.length;
  }
  return position;
}

// The end of "'s", "'t", "'re", "'ve", "'m", "'ll" or "'d" at `begin`, or `begin`.
// Ignoring case, U+017F (long s) is an s too: so say both regular-expression engines.
size_t contraction_end(std::string_view text, size_t begin, bool any_case) {
  if (text[begin] != '\'' || begin + 1 >= text.size()) return begin;
  const auto letter_at = [&](size_t position) {
    const char letter = position < text.size() ? text[position] : '\0';
    const bool is_upper = any_case && letter >= 'A' && letter <= 'Z';
    return is_upper ? static_cast<char>(letter - 'A' + 'a') : letter;
  };
  const char first = letter_at(begin + 1);
  const char second = letter_at(begin + 2);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return begin + 2;
  if (second == 'e' && (first == 'r' || first == 'v')) return begin + 3;
  if (first == 'l' && second == 'l') return begin + 3;
  if (any_case && text.substr(begin + 1, 2) == "\xC5\xBF") return begin + 3;
  return begin;
}

struct SpaceRun {
  size_t end;          // past the last space
  size_t last_begin;   // where the last space begins
  size_t newline_end;  // past the last \r or \n; 0 without one
};

SpaceRun space_run(std::string_view text, size_t begin) {
  SpaceRun run{begin, begin, 0};
  while (run.end < text.size()) {
    const ClassedChar next = char_at(text, run.end);
    if (next.char_class != CharClass::kSpace) break;
    run.last_begin = run.end;
    run.end += next.length;
    if (is_newline_at(text, run.last_begin)) run.newline_end = run.end;
  }
  return run;
}

// \s+(?!\S)|\s+ : the last of several spaces is left to the word after it. `ends_text`: nothing
// that the pattern sees follows.
size_t spaces_word_end(const SpaceRun& run, size_t begin, bool ends_text) {
  return !ends_text && run.last_begin > begin ? run.last_begin : run.end;
}

// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,max_digits}
//   | ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
size_t llama3_word_end(std::string_view text, size_t begin, int max_digits) {
  const size_t contraction = contraction_end(text, begin, /*any_case=*/true);
  if (contraction != begin) return contraction;

  const ClassedChar first = char_at(text, begin);
  const size_t after_first = begin + first.length;
  if (first.char_class == CharClass::kLetter) return run_end(text, after_first, CharClass::kLetter);
  if (first.char_class == CharClass::kNumber) {
    size_t end = after_first;
    for (int digits = 1; digits < max_digits && is_class_at(text, end, CharClass::kNumber);
         ++digits) {
      end += char_at(text, end).length;
    }
    return end;
  }
  if (!is_newline_at(text, begin) && is_class_at(text, after_first, CharClass::kLetter)) {
    return run_end(text, after_first, CharClass::kLetter);
  }
  const size_t symbols_begin = text[begin] == ' ' ? begin + 1 : begin;
  if (is_class_at(text, symbols_begin, CharClass::kOther)) {
    size_t end = run_end(text, symbols_begin, CharClass::kOther);
    while (is_newline_at(text, end)) ++end;
    return end;
  }
  const SpaceRun run = space_run(text, begin);
  if (run.newline_end != 0) return run.newline_end;
  return spaces_word_end(run, begin, run.end == text.size());
}

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// With `numbers_apart`, each number character is a word, and the text before it ends there.
size_t gpt2_word_end(std::string_view text, size_t begin, bool numbers_apart) {
  const size_t contraction = contraction_end(text, begin, /*any_case=*/false);
  if (contraction != begin) return contraction;

  const size_t run_begin = text[begin] == ' ' && begin + 1 < text.size() ? begin + 1 : begin;
  const ClassedChar first = char_at(text, run_begin);
  const bool is_number = first.char_class == CharClass::kNumber;
  if (numbers_apart && is_number) {
    return run_begin == begin ? begin + first.length : run_begin;
  }
  if (first.char_class != CharClass::kSpace) {
    return run_end(text, run_begin + first.length, first.char_class);
  }
  const SpaceRun run = space_run(text, begin);
  const bool ends_text =
      run.end == text.size() || (numbers_apart && is_class_at(text, run.end, CharClass::kNumber));
  return spaces_word_end(run, begin, ends_text);
}

}  // namespace

std::optional<PretokenizerKind> find_pretokenizer(std::string_view gguf_name) {
  if (gguf_name == "llama-bpe" || gguf_name == "llama3" || gguf_name == "llama-v3") {
    return PretokenizerKind::kLlama3;
  }
  if (gguf_name == "qwen2") return PretokenizerKind::kQwen2;
  if (gguf_name == "gpt-2") return PretokenizerKind::kGpt2;
  if (gguf_name == "smollm") return PretokenizerKind::kSmolLm;
  return std::nullopt;
}

std::string_view pretokenizer_name(PretokenizerKind kind) {
  switch (kind) {
    case PretokenizerKind::kLlama3:
      return "llama-bpe";
    case PretokenizerKind::kQwen2:
      return "qwen2";
    case PretokenizerKind::kGpt2:
      return "gpt-2";
    case PretokenizerKind::kSmolLm:
      return "smollm";
  }
  return "";
}

std::optional<PretokenizerKind> find_pretokenizer_by_pattern(std::string_view pattern) {
  if (pattern == kLlama3Pattern) return PretokenizerKind::kLlama3;
  if (pattern == kQwen2Pattern) return PretokenizerKind::kQwen2;
  if (pattern == kGpt2Pattern) return PretokenizerKind::kGpt2;
  return std::nullopt;
}

size_t word_end(PretokenizerKind kind, std::string_view text, size_t begin) {
  switch (kind) {
    case PretokenizerKind::kLlama3:
      return llama3_word_end(text, begin, 3);
    case PretokenizerKind::kQwen2:
      return llama3_word_end(text, begin, 1);
    case PretokenizerKind::kGpt2:
      return gpt2_word_end(text, begin, false);
    case PretokenizerKind::kSmolLm:
      return gpt2_word_end(text, begin, true);
  }
  return text.size();
}

}  // namespace puna::model
