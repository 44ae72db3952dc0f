// SPDX-License-Identifier: Apache-2.0
// `puna bench engine --device cuda`: the same steps on a GPU, beside what it reads at most.
#pragma once

#include "base/result.h"
#include "cli/flags.h"

namespace puna::cli {

Result<int> bench_engine_on_gpu(const BenchEngineFlags& flags);

}  // namespace puna::cli
