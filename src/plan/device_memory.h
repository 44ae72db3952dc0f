// SPDX-License-Identifier: Apache-2.0
// A GPU's memory by owner, beside the plan of the host's. A value; any thread may read it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace puna::plan {

// Its name when it is the KV pool, of which only the blocks in use are used.
inline constexpr std::string_view kDeviceKvPool = "kv_pool";

struct DeviceOwner {
  std::string_view name;  // the label in metrics and JSON
  std::string_view note;  // in the table
  uint64_t bytes = 0;
};

struct DeviceMemory {
  std::string name;          // of the GPU
  uint64_t free_before = 0;  // bytes, when the model was loaded
  uint64_t free_after = 0;
  std::vector<DeviceOwner> owners;

  uint64_t total() const;
  // Lines of at most 80 columns.
  std::string table() const;
};

}  // namespace puna::plan
