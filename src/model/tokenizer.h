// SPDX-License-Identifier: Apache-2.0
// Byte-level BPE, as Llama 3, SmolLM2, GPT-2 and Qwen2 use it. Immutable after loading: any thread
// may encode and decode at the same time. Encoding takes time linear in the text (a 1 MB word
// included). Any bytes can be encoded, and decode to themselves where the vocabulary has a token
// for each byte (SmolLM2's lacks 21, U+0004 among them: those bytes are dropped, as the reference
// tokenizers do).
//
//   ASSIGN_OR_RETURN(Tokenizer tokenizer, Tokenizer::load(checkpoint.tokenizer_source()));
//   std::vector<TokenId> ids = tokenizer.encode("Hello", {.add_bos = true});
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "formats/checkpoint.h"

namespace puna::model {

using TokenId = int32_t;

// A stretch of text to encode. Special tokens ("<|eot_id|>") are recognised only in trusted pieces:
// what a user typed can look like one, but never becomes one.
struct TextPiece {
  std::string_view text;
  bool parse_special = false;
};

struct EncodeOptions {
  bool add_bos = false;        // only where the model's own rule says so: see Tokenizer::adds_bos()
  bool parse_special = false;  // for encode(string_view) only
};

class Tokenizer {
 public:
  // From GGUF metadata, or from a folder's tokenizer.json (else tokenizer.model).
  static Result<Tokenizer> load(const formats::TokenizerSource& source);
  static Result<Tokenizer> from_gguf(const formats::GgufFile& file);
  static Result<Tokenizer> from_tokenizer_json(std::string_view json);
  // Meta's tokenizer.model: lines "base64-bytes rank". Adds Llama 3's 256 special tokens.
  static Result<Tokenizer> from_tiktoken(std::string_view text);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  std::vector<TokenId> encode(std::string_view text, EncodeOptions options = {}) const;
  // The pieces are one text: a BPE word may cross the border between two of them.
  std::vector<TokenId> encode(std::span<const TextPiece> pieces, bool add_bos) const;

  // The bytes of a token: may be part of a UTF-8 character. A special token's bytes are its name.
  // Empty for ids that the vocabulary does not hold.
  std::string_view token_bytes(TokenId id) const;
  std::string decode(std::span<const TokenId> ids, bool skip_special) const;

  int32_t vocab_size() const;
  bool is_special(TokenId id) const;
  std::optional<TokenId> find(std::string_view token) const;  // by exact name or bytes
  std::optional<TokenId> bos() const;
  std::optional<TokenId> eos() const;
  bool adds_bos() const;  // the model expects BOS in front of a plain prompt
  // Every token that ends an answer, ascending: EOS, what the model's files name as such, and the
  // special tokens <|eot_id|>, <|eom_id|>, <|im_end|>, <|end_of_text|>, <|endoftext|>, </s> where
  // it has them.
  std::span<const TokenId> end_of_generation() const;
  int32_t longest_token_bytes() const;

  // The model's own Jinja chat template, empty when it has none.
  const std::string& chat_template() const;

 private:
  struct State;
  explicit Tokenizer(std::unique_ptr<const State> state);
  std::unique_ptr<const State> state_;
};

}  // namespace puna::model
