// SPDX-License-Identifier: Apache-2.0
// Threads that answer while others compute for long. The kernel is asked to give the calling thread
// a core as soon as it has something to do, for a short time each, instead of after the turn of
// whoever computes there (3 ms and more): by a short slice, from Linux 6.12 on (sched_setattr(2),
// sched_runtime of SCHED_OTHER; older ones ignore it), and by a nice value where the process may
// set one (CAP_SYS_NICE, RLIMIT_NICE), for a thread that has used up its fair share waits
// otherwise.
#pragma once

#include <cstdint>

namespace puna {

inline constexpr uint64_t kQuickSliceNs = 100'000;  // the shortest that the kernel takes
inline constexpr int32_t kQuickNice = -5;

// False when the kernel refuses the slice; nothing changes then.
bool make_thread_quick();
// Of the calling thread, ns; 0: unknown, or a kernel before 6.12.
uint64_t asked_slice_ns();

}  // namespace puna
