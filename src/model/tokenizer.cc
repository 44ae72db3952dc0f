// SPDX-License-Identifier: Apache-2.0
#include "model/tokenizer.h"

#include "model/tokenizer_parts.h"
#include "model/tokenizer_state.h"

namespace puna::model {

Tokenizer::Tokenizer(std::unique_ptr<const State> state) : state_(std::move(state)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::load(const formats::TokenizerSource& source) {
  if (source.gguf != nullptr) return from_gguf(*source.gguf);
  ASSIGN_OR_RETURN(TokenizerParts parts, read_tokenizer_folder(source.folder));
  auto state = State::build(std::move(parts));
  if (!state.ok()) return std::move(state).error().with_context(source.folder);
  return Tokenizer(std::move(state).value());
}

Result<Tokenizer> Tokenizer::from_gguf(const formats::GgufFile& file) {
  auto parts = read_gguf_tokenizer(file);
  if (!parts.ok()) return std::move(parts).error().with_context(file.path());
  auto state = State::build(std::move(parts).value());
  if (!state.ok()) return std::move(state).error().with_context(file.path());
  return Tokenizer(std::move(state).value());
}

Result<Tokenizer> Tokenizer::from_tokenizer_json(std::string_view json) {
  ASSIGN_OR_RETURN(TokenizerParts parts, read_tokenizer_json(json));
  ASSIGN_OR_RETURN(auto state, State::build(std::move(parts)));
  return Tokenizer(std::move(state));
}

Result<Tokenizer> Tokenizer::from_tiktoken(std::string_view text) {
  ASSIGN_OR_RETURN(TokenizerParts parts, read_tiktoken(text));
  ASSIGN_OR_RETURN(auto state, State::build(std::move(parts)));
  return Tokenizer(std::move(state));
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  const TextPiece piece{text, options.parse_special};
  return encode(std::span(&piece, 1), options.add_bos);
}

std::vector<TokenId> Tokenizer::encode(std::span<const TextPiece> pieces, bool add_bos) const {
  std::string joined;
  if (pieces.size() > 1) {
    for (const TextPiece& piece : pieces) joined += piece.text;
  }
  const std::string_view text = pieces.size() == 1 ? pieces[0].text : joined;

  std::vector<TokenId> out;
  out.reserve(text.size() / 3 + 8);  // English text has about 4 bytes per token
  if (add_bos && state_->adds_bos) out.push_back(*state_->bos);
  MergeScratch scratch;
  size_t plain_begin = 0;
  size_t piece_begin = 0;
  for (const TextPiece& piece : pieces) {
    const size_t piece_end = piece_begin + piece.text.size();
    const NameFinder& names = piece.parse_special ? state_->added_names : state_->plain_added_names;
    while (const auto match = names.find(text.substr(0, piece_end), piece_begin)) {
      state_->encode_plain(text.substr(plain_begin, match->begin - plain_begin), scratch, out);
      out.push_back(match->id);
      plain_begin = piece_begin = match->end;
    }
    piece_begin = piece_end;
  }
  state_->encode_plain(text.substr(plain_begin), scratch, out);
  return out;
}

std::string_view Tokenizer::token_bytes(TokenId id) const {
  return state_->holds(id) ? state_->bytes(id) : std::string_view();
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool skip_special) const {
  std::string text;
  for (const TokenId id : ids) {
    if (!(skip_special && is_special(id))) text += token_bytes(id);
  }
  return text;
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(state_->is_special.size()); }

bool Tokenizer::is_special(TokenId id) const {
  return state_->holds(id) && state_->is_special[static_cast<size_t>(id)];
}

std::optional<TokenId> Tokenizer::find(std::string_view token) const {
  if (token.empty()) return std::nullopt;
  TokenId id = state_->added_names.find_exact(token);
  if (id == kNoToken) id = state_->whole_words.find(token);
  if (id == kNoToken) id = state_->other_words.find(token);
  return id == kNoToken ? std::nullopt : std::optional(id);
}

std::optional<TokenId> Tokenizer::bos() const { return state_->bos; }
std::optional<TokenId> Tokenizer::eos() const { return state_->eos; }
bool Tokenizer::adds_bos() const { return state_->adds_bos; }
std::span<const TokenId> Tokenizer::end_of_generation() const { return state_->end_of_generation; }
int32_t Tokenizer::longest_token_bytes() const { return state_->longest_token_bytes; }
const std::string& Tokenizer::chat_template() const { return state_->chat_template; }

}  // namespace puna::model
