// SPDX-License-Identifier: Apache-2.0
// A streamed answer, event by event, into a Record. Knows no socket.
#pragma once

#include <string_view>

#include "load/record.h"
#include "load/sse_parser.h"

namespace puna::load {

class AnswerReader {
 public:
  AnswerReader(Record& record, bool keep_text) : record_(record), keep_text_(keep_text) {}

  // Bytes of an event stream that came at `now_ns`.
  void feed(std::string_view bytes, TimeNs now_ns);
  // The stream ended. True for a whole answer: [DONE] came, and no error; else record.error says
  // what was wrong.
  bool finish();

 private:
  void take_event(std::string_view data, TimeNs now_ns);

  Record& record_;
  const bool keep_text_;
  SseParser parser_;
  int32_t pieces_ = 0;
  bool done_ = false;
};

// The message of an OpenAI error body, or the start of the body itself.
std::string error_message_of(std::string_view body);

}  // namespace puna::load
