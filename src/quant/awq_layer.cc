// SPDX-License-Identifier: Apache-2.0
#include "quant/awq_layer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <initializer_list>

#include "base/check.h"
#include "base/numeric.h"
#include "quant/awq.h"
#include "quant/dequant.h"

namespace puna::quant {
namespace {

using formats::Checkpoint;
using formats::TensorType;
using formats::TensorView;
using formats::WeightRole;

// Of each matrix: alpha is one number, which a sample of rows tells as well as all of them.
constexpr int64_t kMostRows = 128;

void append_rows(const TensorView& view, std::vector<float>& rows) {
  const size_t row_bytes = view.data.size() / static_cast<size_t>(view.rows);
  const auto columns = static_cast<size_t>(view.columns);
  const int64_t count = std::min(view.rows, kMostRows);
  for (int64_t i = 0; i < count; ++i) {
    const auto row = static_cast<size_t>(i * view.rows / count);
    rows.resize(rows.size() + columns);
    dequantize(view.type, view.data.subspan(row * row_bytes, row_bytes),
               std::span(rows).last(columns));
  }
}

// As `type` holds it.
float rounded_to(TensorType type, float value) {
  if (type == TensorType::kF16) return to_float(to_float16(value));
  if (type == TensorType::kBF16) return to_float(to_bfloat16(value));
  return value;
}

void append(TensorType type, float value, std::vector<std::byte>& bytes) {
  const auto put = [&](auto stored) {
    const auto* from = reinterpret_cast<const std::byte*>(&stored);
    bytes.insert(bytes.end(), from, from + sizeof(stored));
  };
  if (type == TensorType::kF16) {
    put(to_float16(value).bits);
  } else if (type == TensorType::kBF16) {
    put(to_bfloat16(value).bits);
  } else {
    put(value);
  }
}

}  // namespace

Result<AwqLayer> AwqLayer::search(const Checkpoint& checkpoint, int32_t layer,
                                  const ProductsOf& products_of, int64_t group, int32_t threads) {
  const formats::ModelSpec& spec = checkpoint.spec();
  const auto scales_of = [&](std::initializer_list<WeightRole> roles,
                             std::vector<int32_t> made_by) -> Result<std::vector<float>> {
    AwqInputs inputs;
    ASSIGN_OR_RETURN(inputs.products, products_of({*roles.begin(), layer}));
    inputs.columns = checkpoint.tensor({*roles.begin(), layer}).columns;
    inputs.made_by = std::move(made_by);
    for (const WeightRole role : roles) append_rows(checkpoint.tensor({role, layer}), inputs.rows);
    return search_awq_scales(inputs, group, threads);
  };
  // Query heads that read the same values.
  std::vector<int32_t> made_by(static_cast<size_t>(spec.q_size()));
  const int32_t heads = spec.num_heads / spec.num_kv_heads;
  for (int32_t i = 0; i < spec.q_size(); ++i) {
    made_by[static_cast<size_t>(i)] = i / spec.head_dim / heads * spec.head_dim + i % spec.head_dim;
  }

  AwqLayer result;
  ASSIGN_OR_RETURN(result.attn_in_,
                   scales_of({WeightRole::kAttnQ, WeightRole::kAttnK, WeightRole::kAttnV}, {}));
  ASSIGN_OR_RETURN(result.attended_, scales_of({WeightRole::kAttnOutput}, made_by));
  ASSIGN_OR_RETURN(result.ffn_in_, scales_of({WeightRole::kFfnGate, WeightRole::kFfnUp}, {}));
  ASSIGN_OR_RETURN(result.up_out_, scales_of({WeightRole::kFfnDown}, {}));
  result.values_out_.resize(static_cast<size_t>(spec.kv_size()));
  for (size_t i = 0; i < made_by.size(); ++i) {
    result.values_out_[static_cast<size_t>(made_by[i])] = result.attended_[i];
  }
  result.fold_into_norm(checkpoint.tensor({WeightRole::kAttnNorm, layer}), result.attn_in_,
                        result.attn_norm_);
  result.fold_into_norm(checkpoint.tensor({WeightRole::kFfnNorm, layer}), result.ffn_in_,
                        result.ffn_norm_);
  return result;
}

void AwqLayer::fold_into_norm(const TensorView& norm, std::vector<float>& scales,
                              std::vector<std::byte>& folded) {
  std::vector<float> values(scales.size());
  dequantize(norm.type, norm.data, values);
  for (size_t i = 0; i < scales.size(); ++i) {
    const float divided = rounded_to(norm.type, values[i] / scales[i]);
    const float exact = values[i] / divided;
    // Zero, or beyond what the type holds: left as it is.
    const bool fits = std::isfinite(divided) && std::isfinite(exact) && exact > 0.0F;
    scales[i] = fits ? exact : 1.0F;
    append(norm.type, fits ? divided : values[i], folded);
  }
}

std::span<const float> AwqLayer::column_scales(WeightRole role) const {
  switch (role) {
    case WeightRole::kAttnQ:
    case WeightRole::kAttnK:
    case WeightRole::kAttnV:
      return attn_in_;
    case WeightRole::kAttnOutput:
      return attended_;
    case WeightRole::kFfnGate:
    case WeightRole::kFfnUp:
      return ffn_in_;
    case WeightRole::kFfnDown:
      return up_out_;
    default:
      CHECK(false);
  }
  return {};
}

std::span<const float> AwqLayer::row_divisors(WeightRole role) const {
  if (role == WeightRole::kAttnV) return values_out_;
  if (role == WeightRole::kFfnUp) return up_out_;
  return {};
}

std::span<const std::byte> AwqLayer::norm(WeightRole role) const {
  CHECK(role == WeightRole::kAttnNorm || role == WeightRole::kFfnNorm);
  return role == WeightRole::kAttnNorm ? attn_norm_ : ffn_norm_;
}

}  // namespace puna::quant
