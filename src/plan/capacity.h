// SPDX-License-Identifier: Apache-2.0
// What a machine could hold and about how fast it would be: the part of `puna plan` that `serve`
// does not need.
#pragma once

#include <cstdint>

#include "formats/model_spec.h"
#include "plan/memory_model.h"

namespace puna::plan {

// Within the budget of `plan`, with every sequence at its full length and small host limits; 0 when
// not even one fits.
struct Capacity {
  int32_t most_sequences = 0;   // of plan.max_model_len positions each
  int32_t longest_context = 0;  // of plan.max_num_seqs sequences
};
Capacity capacity(const BackendCost& cost, int32_t max_position, const PlanRequest& request,
                  const MemoryPlan& plan);

// What bounds the speed. Zeros: not known.
struct Machine {
  double read_per_s = 0;  // bytes of memory
  double ops_per_s = 0;   // of the arithmetic that products run in; a multiply-add is two
};
// Roofs, not measurements: bytes over bandwidth or operations over peak, whichever is longer.
struct Speed {
  double decode_alone = 0;     // tokens a second of one sequence at half its context
  double decode_together = 0;  // of plan.max_num_seqs such sequences
  double prefill = 0;          // prompt tokens a second, at half the context
};
Speed estimate_speed(const formats::ModelSpec& spec, const MemoryPlan& plan,
                     uint64_t kv_bytes_per_token, const Machine& machine);

}  // namespace puna::plan
