// SPDX-License-Identifier: Apache-2.0
// Server-sent events out of a byte stream that is cut anywhere.
//
//   SseParser parser;
//   if (!parser.feed(bytes, [&](std::string_view data) { ... })) // an event longer than the limit
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace puna::load {

inline constexpr size_t kMaxEventBytes = size_t{4} << 20U;

class SseParser {
 public:
  // Calls on_data(std::string_view) with each event's data as it becomes complete: "data:" lines
  // joined by newlines. Comments and other fields are skipped. False: an event is too long.
  template <typename OnData>
  bool feed(std::string_view bytes, OnData&& on_data) {
    for (const char c : bytes) {
      if (c == '\n' && after_return_) {
        after_return_ = false;  // the second half of CR LF
        continue;
      }
      after_return_ = c == '\r';
      if (c != '\n' && c != '\r') {
        if (line_.size() + data_.size() >= kMaxEventBytes) return false;
        line_ += c;
        continue;
      }
      if (line_.empty()) {
        if (has_data_) on_data(std::string_view(data_));
        data_.clear();
        has_data_ = false;
      } else {
        take_line();
      }
      line_.clear();
    }
    return true;
  }

  // Bytes of an event that has not ended.
  bool inside_event() const { return has_data_ || !line_.empty(); }

 private:
  void take_line() {
    std::string_view line = line_;
    if (!line.starts_with("data")) return;
    line.remove_prefix(4);
    if (!line.empty() && line.front() != ':') return;
    if (!line.empty()) line.remove_prefix(1);
    if (line.starts_with(' ')) line.remove_prefix(1);
    if (has_data_) data_ += '\n';
    data_ += line;
    has_data_ = true;
  }

  std::string line_;
  std::string data_;
  bool has_data_ = false;
  bool after_return_ = false;
};

}  // namespace puna::load
