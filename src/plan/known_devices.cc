// SPDX-License-Identifier: Apache-2.0
#include "plan/known_devices.h"

#include <array>

namespace puna::plan {
namespace {

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

}  // namespace

const KnownDevice* find_device(std::string_view name) {
  for (const KnownDevice& device : kDevices) {
    if (device.name == name) return &device;
  }
  return nullptr;
}

std::string device_names() {
  std::string names;
  for (const KnownDevice& device : kDevices) {
    if (!names.empty()) names += ", ";
    names += device.name;
  }
  return names;
}

}  // namespace puna::plan
