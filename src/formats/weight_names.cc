// SPDX-License-Identifier: Apache-2.0
#include "formats/weight_names.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <array>
#include <string_view>

#include "base/check.h"
#include "formats/message_text.h"

namespace puna::formats {
namespace {

constexpr size_t kGlobalRoles = 3;
constexpr size_t kLayerRoles = 9;

struct RoleNames {
  std::string_view gguf;
  std::string_view hugging_face;
};

// By WeightRole. The layer roles follow "blk.N." and "model.layers.N.".
constexpr std::array<RoleNames, kGlobalRoles + kLayerRoles> kNames{{
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
    {"attn_norm.weight", "input_layernorm.weight"},
    {"attn_q.weight", "self_attn.q_proj.weight"},
    {"attn_k.weight", "self_attn.k_proj.weight"},
    {"attn_v.weight", "self_attn.v_proj.weight"},
    {"attn_output.weight", "self_attn.o_proj.weight"},
    {"ffn_norm.weight", "post_attention_layernorm.weight"},
    {"ffn_gate.weight", "mlp.gate_proj.weight"},
    {"ffn_up.weight", "mlp.up_proj.weight"},
    {"ffn_down.weight", "mlp.down_proj.weight"},
}};

size_t role_index(WeightRole role) {
  const auto index = static_cast<size_t>(role);
  CHECK(index < kNames.size());
  return index;
}

bool is_layer_role(WeightRole role) { return role_index(role) >= kGlobalRoles; }

Result<TensorView> verified_view(NamedTensor tensor, const WeightShape& shape,
                                 const std::string& where) {
  const std::vector<uint64_t> expected =
      shape.is_vector ? std::vector<uint64_t>{static_cast<uint64_t>(shape.columns)}
                      : std::vector<uint64_t>{static_cast<uint64_t>(shape.rows),
                                              static_cast<uint64_t>(shape.columns)};
  if (tensor.dims != expected) {
    return Error(ErrorCode::kCorrupt,
                 "{}: tensor {} has shape [{}], the model's settings need [{}]", where,
                 in_quotes(tensor.name), fmt::join(tensor.dims, ", "), fmt::join(expected, ", "));
  }
  return TensorView{tensor.name, tensor.type, shape.rows, shape.columns, tensor.data};
}

}  // namespace

WeightShape weight_shape(WeightRole role, const ModelSpec& spec) {
  const int64_t hidden = spec.hidden_size;
  const int64_t ffn = spec.intermediate_size;
  switch (role) {
    case WeightRole::kTokenEmbedding:
    case WeightRole::kOutputHead:
      return {spec.vocab_size, hidden};
    case WeightRole::kOutputNorm:
    case WeightRole::kAttnNorm:
    case WeightRole::kFfnNorm:
      return {1, hidden, true};
    case WeightRole::kAttnQ:
      return {spec.q_size(), hidden};
    case WeightRole::kAttnK:
    case WeightRole::kAttnV:
      return {spec.kv_size(), hidden};
    case WeightRole::kAttnOutput:
      return {hidden, spec.q_size()};
    case WeightRole::kFfnGate:
    case WeightRole::kFfnUp:
      return {ffn, hidden};
    case WeightRole::kFfnDown:
      return {hidden, ffn};
  }
  CHECK(false);
  return {};
}

std::string gguf_weight_name(WeightId id) {
  const std::string_view name = kNames[role_index(id.role)].gguf;
  return is_layer_role(id.role) ? fmt::format("blk.{}.{}", id.layer, name) : std::string(name);
}

std::string hugging_face_weight_name(WeightId id) {
  const std::string_view name = kNames[role_index(id.role)].hugging_face;
  return is_layer_role(id.role) ? fmt::format("model.layers.{}.{}", id.layer, name)
                                : std::string(name);
}

size_t weight_index(WeightId id) {
  const size_t role = role_index(id.role);
  CHECK(is_layer_role(id.role) == (id.layer >= 0));
  return is_layer_role(id.role) ? role + static_cast<size_t>(id.layer) * kLayerRoles : role;
}

size_t weight_count(const ModelSpec& spec) {
  return kGlobalRoles + static_cast<size_t>(spec.num_layers) * kLayerRoles;
}

Result<std::vector<TensorView>> collect_weights(const ModelSpec& spec,
                                                std::string (*name_of)(WeightId),
                                                const TensorLookup& lookup,
                                                const std::string& where) {
  std::vector<TensorView> weights;
  auto add = [&](WeightId id) -> Result<> {
    const bool tied = id.role == WeightRole::kOutputHead && spec.tied_head;
    if (tied) {
      weights.push_back(weights[weight_index({WeightRole::kTokenEmbedding})]);
      return Ok{};
    }
    ASSIGN_OR_RETURN(NamedTensor tensor, lookup(name_of(id)));
    ASSIGN_OR_RETURN(TensorView view,
                     verified_view(std::move(tensor), weight_shape(id.role, spec), where));
    weights.push_back(view);
    return Ok{};
  };
  for (size_t role = 0; role < kGlobalRoles; ++role) {
    RETURN_IF_ERROR(add({static_cast<WeightRole>(role)}));
  }
  for (int32_t layer = 0; layer < spec.num_layers; ++layer) {
    for (size_t role = kGlobalRoles; role < kNames.size(); ++role) {
      RETURN_IF_ERROR(add({static_cast<WeightRole>(role), layer}));
    }
  }
  return weights;
}

}  // namespace puna::formats
