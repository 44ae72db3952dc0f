// SPDX-License-Identifier: Apache-2.0
#include "model/input_products.h"

#include <algorithm>
#include <set>

#include "base/check.h"
#include "model/calibration_run.h"

namespace puna::model {
namespace {

using formats::WeightId;
using formats::WeightRole;

// The first part of the matrix that a weight is multiplied in.
WeightRole first_part(WeightRole role) {
  switch (role) {
    case WeightRole::kAttnQ:
    case WeightRole::kAttnK:
    case WeightRole::kAttnV:
      return WeightRole::kAttnQ;
    case WeightRole::kFfnGate:
    case WeightRole::kFfnUp:
      return WeightRole::kFfnGate;
    default:
      return role;
  }
}

constexpr WeightRole kFirstParts[] = {WeightRole::kAttnQ, WeightRole::kAttnOutput,
                                      WeightRole::kFfnGate, WeightRole::kFfnDown};

}  // namespace

Result<> InputProducts::measure(int32_t first_layer) {
  const formats::ModelSpec& spec = checkpoint_.spec();
  uint64_t layer_bytes = 0;
  for (const WeightRole role : kFirstParts) {
    const auto columns = static_cast<uint64_t>(checkpoint_.tensor({role, 0}).columns);
    layer_bytes += columns * columns * sizeof(float);
  }
  const auto fits = static_cast<int32_t>(
      std::min<uint64_t>(std::max<uint64_t>(budget_bytes_ / layer_bytes, 1), 1 << 20));
  first_ = first_layer;
  end_ = std::min(spec.num_layers, first_layer + fits);
  products_.clear();
  std::set<const std::byte*> wanted;
  for (int32_t layer = first_; layer < end_; ++layer) {
    for (const WeightRole role : kFirstParts) {
      wanted.insert(checkpoint_.tensor({role, layer}).data.data());
    }
  }
  ASSIGN_OR_RETURN(auto pool, kernels::ThreadPool::create(options_.threads));
  ASSIGN_OR_RETURN(const auto inner, exact_ops(*pool));
  TappedOps ops(*inner, std::move(wanted));
  RETURN_IF_ERROR(run_calibration(checkpoint_, text_, options_, ops, *pool));
  for (const auto& matrix : ops.matrices()) {
    if (!matrix->products.empty()) products_[matrix->parts.front()] = std::move(matrix->products);
  }
  return Ok{};
}

Result<std::span<const float>> InputProducts::products(WeightId id) {
  if (id.layer < first_ || id.layer >= end_) RETURN_IF_ERROR(measure(id.layer));
  const formats::TensorView& part = checkpoint_.tensor({first_part(id.role), id.layer});
  const auto products = products_.find(part.data.data());
  CHECK(products != products_.end());
  return std::span<const float>(products->second);
}

Result<std::shared_ptr<const quant::GptqFactor>> InputProducts::factor(WeightId id) {
  if (id.layer < first_ || id.layer >= end_) RETURN_IF_ERROR(measure(id.layer));
  const formats::TensorView& part = checkpoint_.tensor({first_part(id.role), id.layer});
  if (last_.second == nullptr || last_.first != part.data.data()) {
    const auto products = products_.find(part.data.data());
    CHECK(products != products_.end());
    ASSIGN_OR_RETURN(quant::GptqFactor made,
                     quant::GptqFactor::of(std::move(products->second), part.columns));
    products_.erase(products);
    last_ = {part.data.data(), std::make_shared<const quant::GptqFactor>(std::move(made))};
  }
  return last_.second;
}

}  // namespace puna::model
