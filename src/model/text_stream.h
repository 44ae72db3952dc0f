// SPDX-License-Identifier: Apache-2.0
// Tokens to text, as they come: never half a UTF-8 character, never text that may turn out to be
// the beginning of a stop string. One per request and thread; the engine and the API each run their
// own on the same tokens and so agree on where an answer stops. Bytes that are no UTF-8 become
// U+FFFD, one for each beginning of a character that breaks off, as Python's errors="replace" has
// it. However the bytes are cut into tokens, the text is the same.
//
//   TextStream stream(tokenizer, {"\n\n"});
//   std::string text = stream.push(token);   // safe to send now, may be empty
//   if (stream.stopped()) ...                 // a stop string was completed; text ends before it
//   text += stream.flush();                   // at the end: what was held back
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/tokenizer.h"

namespace puna::model {

class TextStream {
 public:
  // Empty stop strings are ignored. Of several, the one that is complete first wins, the longest of
  // those. `include_stop` leaves it in the text.
  TextStream(const Tokenizer& tokenizer, std::vector<std::string> stop_strings,
             bool skip_special = true, bool include_stop = false);

  std::string push(TokenId token);
  std::string flush();  // may complete a stop string too
  // push() for who only wants to know where the answer stops: allocates nothing.
  void follow(TokenId token);
  bool stopped() const { return stopped_; }

 private:
  struct Stop {
    size_t begin;
    size_t end;
  };

  void take_characters(bool at_end);
  std::string release(bool at_end);
  std::optional<Stop> find_stop() const;
  size_t possible_stop_bytes() const;

  const Tokenizer* tokenizer_;
  std::vector<std::string> stop_strings_;
  bool skip_special_;
  bool include_stop_;
  bool stopped_ = false;
  std::string bytes_;  // an unfinished character
  std::string held_;   // valid UTF-8 that may begin a stop string
};

}  // namespace puna::model
