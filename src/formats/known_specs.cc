// SPDX-License-Identifier: Apache-2.0
#include "formats/known_specs.h"

#include <charconv>

namespace puna::formats {
namespace {

constexpr std::string_view kLlama3Of8B = "llama-3-8b";

ModelSpec llama_3_8b() {
  ModelSpec spec;
  spec.architecture = "llama";
  spec.name = kLlama3Of8B;
  spec.num_layers = 32;
  spec.hidden_size = 4096;
  spec.intermediate_size = 14336;
  spec.num_heads = 32;
  spec.num_kv_heads = 8;
  spec.head_dim = 128;
  spec.vocab_size = 128256;
  spec.max_position = 8192;
  spec.rope_theta = 500000.0;
  spec.rope_divisors.assign(64, 1.0F);
  spec.eos_token_ids = {128001, 128009};
  return spec;
}

}  // namespace

Result<ModelSpec> known_spec(std::string_view name) {
  const auto unknown = [&] {
    return Error(ErrorCode::kInvalidArgument,
                 "there is no known model \"{}\"; there are llama-3-8b and llama-3-8b:N, its first "
                 "N layers (1 to 32)",
                 name);
  };
  if (!name.starts_with(kLlama3Of8B)) return unknown();
  ModelSpec spec = llama_3_8b();
  std::string_view layers = name.substr(kLlama3Of8B.size());
  if (layers.empty()) return spec;
  if (!layers.starts_with(':')) return unknown();
  layers.remove_prefix(1);
  int32_t count = 0;
  const auto parsed = std::from_chars(layers.data(), layers.data() + layers.size(), count);
  if (parsed.ec != std::errc() || parsed.ptr != layers.data() + layers.size() || count < 1 ||
      count > spec.num_layers)
    return unknown();
  spec.num_layers = count;
  spec.name = name;
  return spec;
}

}  // namespace puna::formats
