// SPDX-License-Identifier: Apache-2.0
// The forward passes of a calibration, whatever they add up. Internal to calibration.
#pragma once

#include <memory>

#include "kernels/cpu/thread_pool.h"
#include "model/calibration.h"
#include "model/tapped_ops.h"

namespace puna::model {

// Ops that compute in f32, on `pool`.
Result<std::unique_ptr<kernels::Ops>> exact_ops(kernels::ThreadPool& pool);

// Runs the text through the model by `ops`, chunk by chunk. Gives the number of chunks.
Result<int32_t> run_calibration(const formats::Checkpoint& checkpoint, const CalibrationText& text,
                                const CalibrationOptions& options, TappedOps& ops,
                                kernels::ThreadPool& pool);

}  // namespace puna::model
