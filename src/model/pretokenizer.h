// SPDX-License-Identifier: Apache-2.0
// Cuts text into the words that BPE works on, exactly as the model's split pattern would, with a
// hand-written scanner per pattern: linear time, no regular-expression engine, no allocation.
// Bytes that are no UTF-8 count as one character each that is neither letter, number nor space.
//
//   for (size_t at = 0; at < text.size();) {
//     const size_t end = word_end(PretokenizerKind::kLlama3, text, at);
//     use(text.substr(at, end - at)), at = end;
//   }
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace puna::model {

enum class PretokenizerKind : uint8_t {
  kLlama3,  // Llama 3's pattern: numbers in groups of three
  kQwen2,   // the same, numbers one digit at a time
  kGpt2,    // GPT-2's pattern
  kSmolLm,  // every number character alone, then GPT-2's pattern between them
};

// GGUF's `tokenizer.ggml.pre` names: llama-bpe (llama3, llama-v3), qwen2, gpt-2, smollm.
std::optional<PretokenizerKind> find_pretokenizer(std::string_view gguf_name);
std::string_view pretokenizer_name(PretokenizerKind kind);
// By the regular expression of a `Split` pre-tokenizer in tokenizer.json.
std::optional<PretokenizerKind> find_pretokenizer_by_pattern(std::string_view pattern);
inline constexpr std::string_view kPretokenizerNames = "llama-bpe, qwen2, gpt-2, smollm";

// The end of the word that begins at `begin` < text.size(); the text ends where the view ends.
size_t word_end(PretokenizerKind kind, std::string_view text, size_t begin);

}  // namespace puna::model
