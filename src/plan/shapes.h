// SPDX-License-Identifier: Apache-2.0
// Shapes of well-known models and sizes of well-known GPUs, so that `puna plan` needs neither.
// Sources: the models' config.json on Hugging Face; NVIDIA's data sheets (dense bf16 with f32 sums,
// memory as nvidia-smi reports it).
//
//   const KnownShape* shape = find_shape("llama-3-8b");   // null: shape_names() lists them
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "formats/model_spec.h"

namespace puna::plan {

struct KnownShape {
  std::string_view name;
  formats::ModelSpec spec;
};
const KnownShape* find_shape(std::string_view name);
std::string shape_names();  // "llama-3-8b, …"

struct KnownDevice {
  std::string_view name;
  uint64_t memory = 0;        // bytes
  double read_per_s = 0;      // bytes of its memory
  double bf16_ops_per_s = 0;  // a multiply-add is two
};
const KnownDevice* find_device(std::string_view name);
std::string device_names();

}  // namespace puna::plan
