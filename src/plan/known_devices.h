// SPDX-License-Identifier: Apache-2.0
// Sizes of well-known GPUs, so that `puna plan` needs none. Source: NVIDIA's data sheets (dense
// bf16 with f32 sums, memory as nvidia-smi reports it).
//
//   const KnownDevice* device = find_device("h100-80g");   // null: device_names() lists them
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace puna::plan {

struct KnownDevice {
  std::string_view name;
  uint64_t memory = 0;        // bytes
  double read_per_s = 0;      // bytes of its memory
  double bf16_ops_per_s = 0;  // a multiply-add is two
};
const KnownDevice* find_device(std::string_view name);
std::string device_names();

}  // namespace puna::plan
