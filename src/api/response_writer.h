// SPDX-License-Identifier: Apache-2.0
// OpenAI's answer objects: chat.completion, chat.completion.chunk and text_completion. One writer
// per call holds what all its objects share (id, time, model).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/request.h"

namespace puna::api {

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t cached_tokens = 0;
};
void append_usage(std::string& out, const Usage& usage);

std::string_view finish_reason_name(engine::FinishReason reason);

// One choice's piece of an answer, or the whole of it.
struct ChoiceText {
  int32_t index = 0;
  std::string_view text;
  std::string_view logprobs;  // JSON; empty: null
  engine::FinishReason finish = engine::FinishReason::kNone;
  bool first = false;  // chat streams: carries the role
};

class ResponseWriter {
 public:
  struct Config {
    bool chat = false;
    bool stream = false;
    bool usage_key =
        false;  // stream with include_usage: every chunk has "usage", null before the end
    std::string id;
    int64_t created_s = 0;  // since 1970
    std::string model;
    std::string fingerprint;
  };
  explicit ResponseWriter(const Config& config);

  // "data: {…}\n\n". `usage`: on every chunk when continuous_usage_stats was asked for, else null.
  // `extra`: further members of the object, as in `,"name":1`.
  void append_chunk(std::string& out, const ChoiceText& choice, const Usage* usage,
                    std::string_view extra = {}) const;
  // The chunk without choices that ends a stream with include_usage.
  void append_usage_chunk(std::string& out, const Usage& usage, std::string_view extra = {}) const;

  // The whole answer: begin, choices joined by ',', end.
  void begin(std::string& out) const { out += prefix_; }
  void append_choice(std::string& out, const ChoiceText& choice) const;
  static void end(std::string& out, const Usage& usage, std::string_view extra = {});

 private:
  void append_chunk_choice(std::string& out, const ChoiceText& choice) const;

  bool chat_;
  bool usage_key_;
  std::string prefix_;  // {"id":…,"choices":[
};

}  // namespace puna::api
