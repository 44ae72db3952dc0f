// SPDX-License-Identifier: Apache-2.0
// The kinds of task by which quantised variants are checked and requests are routed. One list for
// `check`, which measures per family, and `route`, which sends a request to a variant that passed
// its family.
//
//   std::optional<TaskFamily> family = task_family_named("code");
//   task_family_name(*family);   // "code"
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace puna {

enum class TaskFamily : uint8_t {
  kArithmetic,   // word problems with numbers
  kAlgebra,      // equations, units, remainders
  kJsonExtract,  // facts out of prose into a schema
  kToolCall,     // choose a function, fill its arguments
  kCode,         // a function from its description
  kRetrieval,    // a fact out of a long context
  kFormat,       // an answer of a demanded form
  kEdit,         // a given text with changes
  kOpenChat,     // everything else; nothing scores it
};
inline constexpr size_t kNumTaskFamilies = 9;
inline constexpr size_t index_of(TaskFamily family) { return static_cast<size_t>(family); }

// In the order of TaskFamily: in certificates, metrics and headers.
inline constexpr std::array<std::string_view, kNumTaskFamilies> kTaskFamilyNames = {
    "arithmetic", "algebra", "json_extract", "tool_call", "code",
    "retrieval",  "format",  "edit",         "open_chat"};

constexpr std::string_view task_family_name(TaskFamily family) {
  return kTaskFamilyNames[index_of(family)];
}

constexpr std::optional<TaskFamily> task_family_named(std::string_view name) {
  for (size_t i = 0; i < kNumTaskFamilies; ++i) {
    if (kTaskFamilyNames[i] == name) return static_cast<TaskFamily>(i);
  }
  return std::nullopt;
}

}  // namespace puna
