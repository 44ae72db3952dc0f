// SPDX-License-Identifier: Apache-2.0
#include "plan/shapes.h"

#include <array>
#include <span>
#include <vector>

namespace puna::plan {
namespace {

struct Numbers {
  std::string_view name;
  int32_t num_layers, hidden_size, intermediate_size, num_heads, num_kv_heads, head_dim;
  int32_t vocab_size, max_position;
  bool tied_head;
};

constexpr std::array<Numbers, 8> kShapes = {{
    {"smollm2-135m", 30, 576, 1536, 9, 3, 64, 49152, 8192, true},
    {"smollm2-1.7b", 24, 2048, 8192, 32, 32, 64, 49152, 8192, true},
    {"llama-3.2-1b", 16, 2048, 8192, 32, 8, 64, 128256, 131072, true},
    {"llama-3.2-3b", 28, 3072, 8192, 24, 8, 128, 128256, 131072, true},
    {"llama-2-7b", 32, 4096, 11008, 32, 32, 128, 32000, 4096, false},
    {"llama-3-8b", 32, 4096, 14336, 32, 8, 128, 128256, 8192, false},
    {"llama-3.1-8b", 32, 4096, 14336, 32, 8, 128, 128256, 131072, false},
    {"llama-3.1-70b", 80, 8192, 28672, 64, 8, 128, 128256, 131072, false},
}};

constexpr uint64_t kMiB = 1 << 20;
constexpr std::array<KnownDevice, 9> kDevices = {{
    {"h200-141g", 143771 * kMiB, 4.80e12, 989e12},
    {"h100-80g", 81559 * kMiB, 3.35e12, 989e12},
    {"a100-80g", 81920 * kMiB, 2.039e12, 312e12},
    {"a100-40g", 40960 * kMiB, 1.555e12, 312e12},
    {"l40s-48g", 46068 * kMiB, 0.864e12, 362e12},
    {"l4-24g", 23034 * kMiB, 0.300e12, 121e12},
    {"a10-24g", 23028 * kMiB, 0.600e12, 125e12},
    {"rtx-4090", 24564 * kMiB, 1.008e12, 165e12},
    {"rtx-3090", 24576 * kMiB, 0.936e12, 71e12},
}};

formats::ModelSpec spec_of(const Numbers& numbers) {
  formats::ModelSpec spec;
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
  spec.tied_head = numbers.tied_head;
  spec.rope_divisors.assign(static_cast<size_t>(numbers.head_dim / 2), 1.0F);
  return spec;
}

const std::vector<KnownShape>& shapes() {
  static const std::vector<KnownShape> all = [] {
    std::vector<KnownShape> made;
    for (const Numbers& numbers : kShapes) made.push_back({numbers.name, spec_of(numbers)});
    return made;
  }();
  return all;
}

template <typename Known>
const Known* find(std::span<const Known> all, std::string_view name) {
  for (const Known& known : all) {
    if (known.name == name) return &known;
  }
  return nullptr;
}

template <typename Known>
std::string names_of(std::span<const Known> all) {
  std::string names;
  for (const Known& known : all) {
    if (!names.empty()) names += ", ";
    names += known.name;
  }
  return names;
}

}  // namespace

const KnownShape* find_shape(std::string_view name) {
  return find(std::span<const KnownShape>(shapes()), name);
}
std::string shape_names() { return names_of(std::span<const KnownShape>(shapes())); }
const KnownDevice* find_device(std::string_view name) {
  return find(std::span<const KnownDevice>(kDevices), name);
}
std::string device_names() { return names_of(std::span<const KnownDevice>(kDevices)); }

}  // namespace puna::plan
