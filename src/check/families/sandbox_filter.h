// SPDX-License-Identifier: Apache-2.0
// The seccomp program of the sandbox: a list of allowed system calls, everything else fails with
// EPERM. Opening a file is allowed for reading only.
#pragma once

#include <linux/filter.h>

#include <vector>

namespace puna::check {

// Empty on processors that the list does not cover.
std::vector<sock_filter> sandbox_filter();

}  // namespace puna::check
