// SPDX-License-Identifier: Apache-2.0
#include "base/quick_thread.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace puna {
namespace {

// struct sched_attr of the kernel, in its first version; glibc has it from 2.41 on.
struct SchedulingAttributes {
  uint32_t size = sizeof(SchedulingAttributes);
  uint32_t policy = 0;
  uint64_t flags = 0;
  int32_t nice = 0;
  uint32_t priority = 0;
  uint64_t runtime_ns = 0;
  uint64_t deadline_ns = 0;
  uint64_t period_ns = 0;
};
static_assert(sizeof(SchedulingAttributes) == 48);

constexpr uint32_t kNormalPolicy = 0;  // SCHED_OTHER

bool read_own(SchedulingAttributes& attributes) {
  return syscall(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0) == 0;
}

}  // namespace

bool make_thread_quick() {
  SchedulingAttributes attributes;
  if (!read_own(attributes) || attributes.policy != kNormalPolicy) return false;
  attributes.flags = 0;
  attributes.runtime_ns = kQuickSliceNs;
  const int32_t usual_nice = std::exchange(attributes.nice, std::min(attributes.nice, kQuickNice));
  if (syscall(SYS_sched_setattr, 0, &attributes, 0) == 0) return true;
  attributes.nice = usual_nice;
  return syscall(SYS_sched_setattr, 0, &attributes, 0) == 0;
}

uint64_t asked_slice_ns() {
  SchedulingAttributes attributes;
  return read_own(attributes) ? attributes.runtime_ns : 0;
}

}  // namespace puna
