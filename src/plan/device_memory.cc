// SPDX-License-Identifier: Apache-2.0
#include "plan/device_memory.h"

#include <fmt/format.h>

#include <iterator>

#include "plan/byte_size.h"

namespace puna::plan {

uint64_t DeviceMemory::total() const {
  uint64_t sum = 0;
  for (const DeviceOwner& owner : owners) sum += owner.bytes;
  return sum;
}

std::string DeviceMemory::table() const {
  std::string out = fmt::format("on {}:\n", name);
  for (const DeviceOwner& owner : owners) {
    fmt::format_to(std::back_inserter(out), "  {:<16} {:>10}  {}\n", owner.name,
                   format_bytes(owner.bytes), owner.note);
  }
  fmt::format_to(std::back_inserter(out), "  {:<16} {:>10}  of {} free before, {} taken\n", "total",
                 format_bytes(total()), format_bytes(free_before),
                 format_bytes(free_before - free_after));
  return out;
}

}  // namespace puna::plan
