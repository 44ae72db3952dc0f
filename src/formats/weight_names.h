// SPDX-License-Identifier: Apache-2.0
// Which weights a Llama model has, their shapes, and what GGUF and Hugging Face call them.
// For formats and the quantiser; others ask Checkpoint::tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "formats/checkpoint.h"
#include "formats/model_spec.h"

namespace puna::formats {

struct WeightShape {
  int64_t rows = 0;  // 1 for vectors
  int64_t columns = 0;
  bool is_vector = false;
};

WeightShape weight_shape(WeightRole role, const ModelSpec& spec);
std::string gguf_weight_name(WeightId id);
std::string hugging_face_weight_name(WeightId id);

// Where weight `id` stands in a vector of all weights: three global roles, then nine per layer.
size_t weight_index(WeightId id);
size_t weight_count(const ModelSpec& spec);

// One tensor of a file; `dims` as in a safetensors file: rows before columns.
struct NamedTensor {
  std::string_view name;
  TensorType type = TensorType::kF32;
  std::vector<uint64_t> dims;
  std::span<const std::byte> data;
};

// Finds a tensor by its name in the file, or fails naming it and the file.
using TensorLookup = std::function<Result<NamedTensor>(const std::string& name)>;

// Every weight of `spec` in weight_index order, shapes verified. `where` names the file in
// messages.
Result<std::vector<TensorView>> collect_weights(const ModelSpec& spec,
                                                std::string (*name_of)(WeightId),
                                                const TensorLookup& lookup,
                                                const std::string& where);

}  // namespace puna::formats
