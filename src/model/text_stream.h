// SPDX-License-Identifier: Apache-2.0
// Tokens to text, as they come: never half a UTF-8 character, never text that may turn out to be the
// beginning of a stop string. One per request and thread; the engine and the API each run their own on
// the same tokens and so agree on where an answer stops. Bytes that are no UTF-8 become U+FFFD.
//
//   TextStream stream(tokenizer, {"\n\n"});
//   std::string text = stream.push(token);   // safe to send now, may be empty
//   if (stream.stopped()) ...                 // a stop string was completed; text ends before it
//   text += stream.flush();                   // at the end: what was held back
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "model/tokenizer.h"

namespace puna::model {

class TextStream {
 public:
  TextStream(const Tokenizer& tokenizer, std::vector<std::string> stop_strings,
             bool skip_special = true, bool include_stop = false);

  std::string push(TokenId token);
  std::string flush();
  bool stopped() const { return stopped_; }

 private:
  const Tokenizer* tokenizer_;
  std::vector<std::string> stop_strings_;
  bool skip_special_;
  bool include_stop_;
  bool stopped_ = false;
  std::string held_;  // valid UTF-8 that may begin a stop string, then an unfinished character
};

}  // namespace puna::model
