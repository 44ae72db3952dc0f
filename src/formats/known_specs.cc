// SPDX-License-Identifier: Apache-2.0
#include "formats/known_specs.h"

#include <array>
#include <charconv>
#include <optional>

namespace puna::formats {
namespace {

struct Numbers {
  std::string_view name;
  int32_t num_layers, hidden_size, intermediate_size, num_heads, num_kv_heads, head_dim;
  int32_t vocab_size, max_position;
  double rope_theta;
  bool tied_head;
  std::array<int32_t, 3> eos_token_ids;  // -1: there are fewer
};

constexpr std::array<Numbers, 8> kModels = {{
    {"smollm2-135m", 30, 576, 1536, 9, 3, 64, 49152, 8192, 1e5, true, {2, -1, -1}},
    {"smollm2-1.7b", 24, 2048, 8192, 32, 32, 64, 49152, 8192, 1.3e5, true, {2, -1, -1}},
    {"llama-3.2-1b",
     16,
     2048,
     8192,
     32,
     8,
     64,
     128256,
     131072,
     5e5,
     true,
     {128001, 128008, 128009}},
    {"llama-3.2-3b",
     28,
     3072,
     8192,
     24,
     8,
     128,
     128256,
     131072,
     5e5,
     true,
     {128001, 128008, 128009}},
    {"llama-2-7b", 32, 4096, 11008, 32, 32, 128, 32000, 4096, 1e4, false, {2, -1, -1}},
    {"llama-3-8b", 32, 4096, 14336, 32, 8, 128, 128256, 8192, 5e5, false, {128001, 128009, -1}},
    {"llama-3.1-8b",
     32,
     4096,
     14336,
     32,
     8,
     128,
     128256,
     131072,
     5e5,
     false,
     {128001, 128008, 128009}},
    {"llama-3.1-70b",
     80,
     8192,
     28672,
     64,
     8,
     128,
     128256,
     131072,
     5e5,
     false,
     {128001, 128008, 128009}},
}};

ModelSpec spec_of(const Numbers& numbers) {
  ModelSpec spec;
  spec.architecture = "llama";
  spec.name = numbers.name;
  spec.num_layers = numbers.num_layers;
  spec.hidden_size = numbers.hidden_size;
  spec.intermediate_size = numbers.intermediate_size;
  spec.num_heads = numbers.num_heads;
  spec.num_kv_heads = numbers.num_kv_heads;
  spec.head_dim = numbers.head_dim;
  spec.vocab_size = numbers.vocab_size;
  spec.max_position = numbers.max_position;
  spec.rope_theta = numbers.rope_theta;
  spec.tied_head = numbers.tied_head;
  spec.rope_divisors.assign(static_cast<size_t>(numbers.head_dim / 2), 1.0F);
  for (const int32_t id : numbers.eos_token_ids) {
    if (id >= 0) spec.eos_token_ids.push_back(id);
  }
  return spec;
}

const Numbers* find(std::string_view name) {
  for (const Numbers& numbers : kModels) {
    if (numbers.name == name) return &numbers;
  }
  return nullptr;
}

// 1 to `most` and nothing else.
std::optional<int32_t> layer_count(std::string_view text, int32_t most) {
  int32_t count = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), count);
  const bool whole = parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
  if (!whole || count < 1 || count > most) return std::nullopt;
  return count;
}

}  // namespace

Result<ModelSpec> known_spec(std::string_view name) {
  const size_t colon = name.find(':');
  const Numbers* const numbers = find(name.substr(0, colon));
  if (numbers == nullptr) {
    return Error(ErrorCode::kInvalidArgument, "there is no known model \"{}\"; there are {}", name,
                 known_spec_names());
  }
  ModelSpec spec = spec_of(*numbers);
  if (colon == std::string_view::npos) return spec;
  const std::optional<int32_t> layers = layer_count(name.substr(colon + 1), spec.num_layers);
  if (!layers) {
    return Error(ErrorCode::kInvalidArgument, "\"{}\": {}:N has the first N of 1 to {} layers",
                 name, numbers->name, spec.num_layers);
  }
  spec.num_layers = *layers;
  spec.name = name;
  return spec;
}

std::string known_spec_names() {
  std::string names;
  for (const Numbers& numbers : kModels) {
    if (!names.empty()) names += ", ";
    names += numbers.name;
  }
  return names;
}

}  // namespace puna::formats
