// SPDX-License-Identifier: Apache-2.0
// AWQ (awq.h) of one layer of a Hugging Face checkpoint: four groups of matrices, the scales of
// each folded into what makes their inputs:
//   q, k, v    the attention's norm        gate, up   the FFN's norm
//   output     the rows of v               down       the rows of up
//
//   ASSIGN_OR_RETURN(AwqLayer layer, AwqLayer::search(checkpoint, 3, products_of, 128, 4));
//   new_weight[r][c] = weight[r][c] * layer.column_scales(role)[c] / layer.row_divisors(role)[r];
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/result.h"
#include "formats/checkpoint.h"

namespace puna::quant {

// Sums of products of what enters a matrix (model/input_products.h), until another layer's are
// asked for.
using ProductsOf = std::function<Result<std::span<const float>>(formats::WeightId id)>;

class AwqLayer {
 public:
  // Errors: those of `products_of`.
  static Result<AwqLayer> search(const formats::Checkpoint& checkpoint, int32_t layer,
                                 const ProductsOf& products_of, int64_t group, int32_t threads);

  std::span<const float> column_scales(formats::WeightRole role) const;
  std::span<const float> row_divisors(formats::WeightRole role) const;  // none: 1
  // Divided by the scales, in the type that the file has them in. What that rounds off is in the
  // scales, not lost.
  std::span<const std::byte> norm(formats::WeightRole role) const;

 private:
  void fold_into_norm(const formats::TensorView& norm, std::vector<float>& scales,
                      std::vector<std::byte>& folded);

  std::vector<float> attn_in_;     // [hidden_size]
  std::vector<float> attended_;    // [q_size]
  std::vector<float> values_out_;  // [kv_size]
  std::vector<float> ffn_in_;      // [hidden_size]
  std::vector<float> up_out_;      // [intermediate_size]
  std::vector<std::byte> attn_norm_;
  std::vector<std::byte> ffn_norm_;
};

}  // namespace puna::quant
