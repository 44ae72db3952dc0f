// SPDX-License-Identifier: Apache-2.0
#include "quant/mix.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/check.h"

namespace puna::quant {
namespace {

using formats::TensorType;
using formats::WeightRole;

struct MixInfo {
  Mix mix;
  std::string_view name;
  TensorType type;  // of what no rule names
  uint32_t file_type;
};

constexpr std::array<MixInfo, 18> kMixes = {{
    {Mix::kF32, "F32", TensorType::kF32, 0},
    {Mix::kF16, "F16", TensorType::kF16, 1},
    {Mix::kBF16, "BF16", TensorType::kBF16, 32},
    {Mix::kQ8_0, "Q8_0", TensorType::kQ8_0, 7},
    {Mix::kQ6_K, "Q6_K", TensorType::kQ6_K, 18},
    {Mix::kQ5_K_M, "Q5_K_M", TensorType::kQ5_K, 17},
    {Mix::kQ5_K_S, "Q5_K_S", TensorType::kQ5_K, 16},
    {Mix::kQ4_K_M, "Q4_K_M", TensorType::kQ4_K, 15},
    {Mix::kQ4_K_S, "Q4_K_S", TensorType::kQ4_K, 14},
    {Mix::kQ3_K_L, "Q3_K_L", TensorType::kQ3_K, 13},
    {Mix::kQ3_K_M, "Q3_K_M", TensorType::kQ3_K, 12},
    {Mix::kQ3_K_S, "Q3_K_S", TensorType::kQ3_K, 11},
    {Mix::kQ2_K, "Q2_K", TensorType::kQ2_K, 10},
    {Mix::kQ5_1, "Q5_1", TensorType::kQ5_1, 9},
    {Mix::kQ5_0, "Q5_0", TensorType::kQ5_0, 8},
    {Mix::kQ4_1, "Q4_1", TensorType::kQ4_1, 3},
    {Mix::kQ4_0, "Q4_0", TensorType::kQ4_0, 2},
    {Mix::kIQ4_NL, "IQ4_NL", TensorType::kIQ4_NL, 25},
}};

const MixInfo& info(Mix mix) {
  const auto index = static_cast<size_t>(mix);
  CHECK(index < kMixes.size());
  CHECK(kMixes[index].mix == mix);
  return kMixes[index];
}

// The first and the last eighth of the layers, and every third between.
bool is_sensitive(int32_t layer, int32_t layers) {
  const int32_t eighth = layers / 8;
  return layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2;
}

// Eight query heads or so share each value head: a small matrix that much depends on.
bool shares_values(const formats::ModelSpec& spec) {
  return spec.num_heads / spec.num_kv_heads >= 4;
}

TensorType value_type(Mix mix, int32_t layer, const formats::ModelSpec& spec) {
  TensorType type = info(mix).type;
  switch (mix) {
    case Mix::kQ2_K:
      type = shares_values(spec) ? TensorType::kQ4_K : TensorType::kQ3_K;
      break;
    case Mix::kQ3_K_M:
      type = layer < 2 ? TensorType::kQ5_K : TensorType::kQ4_K;
      break;
    case Mix::kQ3_K_L:
      type = TensorType::kQ5_K;
      break;
    case Mix::kQ4_K_S:
      if (layer < 4) type = TensorType::kQ5_K;
      break;
    case Mix::kQ4_K_M:
    case Mix::kQ5_K_M:
      if (is_sensitive(layer, spec.num_layers)) type = TensorType::kQ6_K;
      break;
    case Mix::kIQ4_NL:
      if (shares_values(spec)) type = TensorType::kQ5_K;
      break;
    default:
      break;
  }
  const bool shape_of_70b = spec.num_layers == 80 && spec.num_heads != spec.num_kv_heads;
  if (shape_of_70b && (type == TensorType::kQ3_K || type == TensorType::kQ4_K)) {
    return TensorType::kQ5_K;
  }
  return type;
}

TensorType down_type(Mix mix, int32_t layer, int32_t layers, bool has_importance) {
  const TensorType type = info(mix).type;
  const bool early = layer < layers / 8;
  switch (mix) {
    case Mix::kQ2_K:
      return TensorType::kQ3_K;
    case Mix::kQ3_K_M:
      return layer < layers / 16 ? TensorType::kQ5_K : TensorType::kQ4_K;
    case Mix::kQ3_K_L:
      return TensorType::kQ5_K;
    case Mix::kQ4_K_S:
      return early ? TensorType::kQ5_K : type;
    case Mix::kQ4_K_M:
    case Mix::kQ5_K_M:
      return is_sensitive(layer, layers) ? TensorType::kQ6_K : type;
    case Mix::kIQ4_NL:
      return early && !has_importance ? TensorType::kQ5_K : type;
    case Mix::kQ4_0:
      return early && has_importance ? TensorType::kQ4_1 : type;
    case Mix::kQ5_0:
      return early && has_importance ? TensorType::kQ5_1 : type;
    default:
      return type;
  }
}

TensorType attention_output_type(Mix mix) {
  switch (mix) {
    case Mix::kQ2_K:
      return TensorType::kQ3_K;
    case Mix::kQ3_K_M:
      return TensorType::kQ4_K;
    case Mix::kQ3_K_L:
      return TensorType::kQ5_K;
    default:
      return info(mix).type;
  }
}

TensorType wanted_type(Mix mix, formats::WeightId id, const formats::ModelSpec& spec,
                       bool has_importance) {
  switch (id.role) {
    case WeightRole::kOutputHead:
      return mix == Mix::kQ8_0 ? TensorType::kQ8_0 : TensorType::kQ6_K;
    case WeightRole::kTokenEmbedding:  // a tied one is the head
      if (spec.tied_head) return mix == Mix::kQ8_0 ? TensorType::kQ8_0 : TensorType::kQ6_K;
      return info(mix).type;
    case WeightRole::kAttnV:
      return value_type(mix, id.layer, spec);
    case WeightRole::kAttnOutput:
      return attention_output_type(mix);
    case WeightRole::kFfnDown:
      return down_type(mix, id.layer, spec.num_layers, has_importance);
    default:
      return info(mix).type;
  }
}

// Rows that are not whole blocks of 256 take the next larger type with blocks of 32.
TensorType with_small_blocks(TensorType type) {
  switch (type) {
    case TensorType::kQ2_K:
    case TensorType::kQ3_K:
      return TensorType::kQ4_0;
    case TensorType::kQ4_K:
      return TensorType::kQ5_0;
    case TensorType::kQ5_K:
      return TensorType::kQ5_1;
    case TensorType::kQ6_K:
      return TensorType::kQ8_0;
    default:
      return type;
  }
}

bool fits(TensorType type, int64_t columns) {
  return columns % static_cast<int64_t>(formats::tensor_type_info(type).block_elements) == 0;
}

bool is_vector(WeightRole role) {
  return role == WeightRole::kOutputNorm || role == WeightRole::kAttnNorm ||
         role == WeightRole::kFfnNorm;
}

}  // namespace

Result<Mix> find_mix(std::string_view name) {
  std::string upper(name);
  for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  for (const MixInfo& candidate : kMixes) {
    if (candidate.name == upper) return candidate.mix;
  }
  return Error(ErrorCode::kInvalidArgument, "there is no type {}; there are {}", name, mix_names());
}

std::string_view mix_name(Mix mix) { return info(mix).name; }

std::string mix_names() {
  std::string names;
  for (const MixInfo& mix : kMixes) {
    if (!names.empty()) names += ", ";
    names += mix.name;
  }
  return names;
}

uint32_t mix_file_type(Mix mix) { return info(mix).file_type; }

TensorType mix_type(Mix mix, formats::WeightId id, const formats::ModelSpec& spec, int64_t columns,
                    bool has_importance) {
  if (is_vector(id.role)) return TensorType::kF32;
  const TensorType plain = info(mix).type;
  if (mix == Mix::kF32 || mix == Mix::kF16 || mix == Mix::kBF16) return plain;
  TensorType type = wanted_type(mix, id, spec, has_importance);
  if (!fits(type, columns)) type = with_small_blocks(type);
  return fits(type, columns) ? type : TensorType::kF16;
}

}  // namespace puna::quant
