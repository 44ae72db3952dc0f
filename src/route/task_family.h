// SPDX-License-Identifier: Apache-2.0
// From a request to its task family: what the client says comes first, then what the request holds,
// then its words. Reads a few KiB of text at most, in linear time. Pure functions; any thread.
//
//   Classified found = classify({.user = "Solve for x: 3x + 7 = 22"});
//   found.family;       // kAlgebra
//   found.confidence;   // 0 to 1: the share of the evidence that is for it
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/task_family.h"

namespace puna::route {

// What a request shows. Texts are read, not kept.
struct RequestSigns {
  std::optional<TaskFamily> header = std::nullopt;    // x-puna-task
  std::optional<TaskFamily> metadata = std::nullopt;  // the body's metadata.task
  bool tools = false;                                 // functions that the model may call
  bool response_format = false;                       // JSON is demanded
  std::string_view system = {};
  std::string_view user = {};  // the last message, or the prompt
};

enum class Source : uint8_t { kHeader, kMetadata, kTools, kResponseFormat, kText };
std::string_view source_name(Source source);  // "header", "text", ...

// One thing that speaks for a family.
struct Evidence {
  std::string what;  // "words \"solve for\"", "an equation"
  TaskFamily family = TaskFamily::kOpenChat;
  float weight = 0;  // of the log odds
};

struct Classified {
  TaskFamily family = TaskFamily::kOpenChat;
  double confidence = 0;
  Source source = Source::kText;
};

// `evidence`: receives what the text showed, for a person who asks why; null: not wanted.
Classified classify(const RequestSigns& signs, std::vector<Evidence>* evidence = nullptr);

}  // namespace puna::route
