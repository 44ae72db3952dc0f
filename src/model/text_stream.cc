// SPDX-License-Identifier: Apache-2.0
#include "model/text_stream.h"

#include <algorithm>

#include "model/utf8.h"

namespace puna::model {
namespace {

constexpr size_t kLongestCharacter = 4;

}  // namespace

TextStream::TextStream(const Tokenizer& tokenizer, std::vector<std::string> stop_strings,
                       bool skip_special, bool include_stop)
    : tokenizer_(&tokenizer),
      stop_strings_(std::move(stop_strings)),
      skip_special_(skip_special),
      include_stop_(include_stop) {
  std::erase(stop_strings_, std::string());
  size_t longest_stop = 0;
  for (const std::string& stop : stop_strings_) longest_stop = std::max(longest_stop, stop.size());
  // A token behind the unfinished character of the one before; each byte may become U+FFFD.
  const auto most = static_cast<size_t>(tokenizer.longest_token_bytes()) + kLongestCharacter;
  bytes_.reserve(most);
  held_.reserve(longest_stop + most * kReplacementCharacter.size());
}

std::string TextStream::push(TokenId token) {
  if (stopped_ || (skip_special_ && tokenizer_->is_special(token))) return {};
  bytes_ += tokenizer_->token_bytes(token);
  take_characters(/*at_end=*/false);
  return release(/*at_end=*/false);
}

void TextStream::follow(TokenId token) {
  if (stopped_ || (skip_special_ && tokenizer_->is_special(token))) return;
  bytes_ += tokenizer_->token_bytes(token);
  take_characters(/*at_end=*/false);
  stopped_ = find_stop().has_value();
  held_.erase(0, held_.size() - possible_stop_bytes());
}

std::string TextStream::flush() {
  if (stopped_) return {};
  take_characters(/*at_end=*/true);
  return release(/*at_end=*/true);
}

// Moves what is decided from bytes_ to held_.
void TextStream::take_characters(bool at_end) {
  size_t at = 0;
  while (at < bytes_.size()) {
    const Utf8Char next = utf8_char_at(bytes_, at);
    if (next.status == Utf8Char::Status::kUnfinished && !at_end) break;
    if (next.status == Utf8Char::Status::kValid) {
      held_.append(bytes_, at, next.length);
    } else {
      held_ += kReplacementCharacter;
    }
    at += next.length;
  }
  bytes_.erase(0, at);
}

std::string TextStream::release(bool at_end) {
  if (const auto stop = find_stop()) {
    stopped_ = true;
    held_.resize(include_stop_ ? stop->end : stop->begin);
    return std::move(held_);
  }
  const size_t keep = at_end ? 0 : possible_stop_bytes();
  std::string text = held_.substr(0, held_.size() - keep);
  held_.erase(0, text.size());
  return text;
}

// By end, not by beginning: it must not matter how much text one push brings.
std::optional<TextStream::Stop> TextStream::find_stop() const {
  std::optional<Stop> first;
  for (const std::string& stop : stop_strings_) {
    const size_t begin = held_.find(stop);
    if (begin == std::string::npos) continue;
    const size_t end = begin + stop.size();
    const bool is_earlier =
        !first || end < first->end || (end == first->end && begin < first->begin);
    if (is_earlier) first = Stop{begin, end};
  }
  return first;
}

// The longest end of held_ that begins a stop string.
size_t TextStream::possible_stop_bytes() const {
  size_t longest = 0;
  for (const std::string& stop : stop_strings_) {
    for (size_t length = std::min(stop.size() - 1, held_.size()); length > longest; --length) {
      if (held_.ends_with(std::string_view(stop).substr(0, length))) {
        longest = length;
        break;
      }
    }
  }
  return longest;
}

}  // namespace puna::model
