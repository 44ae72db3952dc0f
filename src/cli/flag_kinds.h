// SPDX-License-Identifier: Apache-2.0
// Kinds of flags that several sub-commands have. Internal to the parsers of flags.h.
#pragma once

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/result.h"
#include "cli/flags.h"

namespace puna::cli {

inline constexpr int32_t kMaxContext = 1 << 24;
inline constexpr int32_t kMaxSequences = 4096;

// As CLI::Range, but says no to NaN, and says so in a sentence.
template <typename T>
auto in_range(T low, T high) {
  return [low, high](const std::string& text) {
    T number{};
    // CLI11 would let "-1" wrap around to the largest unsigned number.
    if (std::is_unsigned_v<T> && text.starts_with('-')) return text + " is negative";
    if (!CLI::detail::lexical_cast(text, number)) return fmt::format("{} is no number", text);
    if (number >= low && number <= high) return std::string();
    return fmt::format("{} is out of range: {} to {}", text, low, high);
  };
}

template <typename T>
CLI::Option* add_number(CLI::App& app, const std::string& name, T& value, T low, T high) {
  return app.add_option(name, value)->check(in_range(low, high));
}

// One of a few names, each for a value.
template <typename T>
void add_choice(CLI::App& app, const std::string& name, T& value,
                std::vector<std::pair<std::string, T>> choices) {
  std::vector<std::string> names;
  names.reserve(choices.size());
  for (const auto& choice : choices) names.push_back(choice.first);
  const auto set = [&value, choices = std::move(choices)](const std::string& text) {
    for (const auto& choice : choices) {
      if (choice.first == text) value = choice.second;
    }
  };
  app.add_option_function<std::string>(name, set)->check(CLI::IsMember(std::move(names)));
}

// Checked when all is known, for PUNA_CPU goes to every sub-command before --isa may replace it.
Result<> check_isa(const ModelFlags& flags);
// CPU or one GPU, and where what a GPU was tuned to is kept. Whether there is that GPU is seen when
// the model is loaded.
void add_device(CLI::App& app, ModelFlags& flags);
// An error for flags of a GPU without one.
Result<> check_gpu_flags(const ModelFlags& flags);
// --kv-dtype, or another name for it.
void add_kv_dtype(CLI::App& app, const std::string& name, std::optional<kernels::KvType>& kv_dtype);
// What says how to compute, whichever model.
void add_compute_flags(CLI::App& app, ModelFlags& flags);

}  // namespace puna::cli
