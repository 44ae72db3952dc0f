// SPDX-License-Identifier: Apache-2.0
// Memory of several variants of a model in one process, under one budget: each has its weights, KV
// pool and activations; connections, tokenizer, threads and runtime are there once, in the first
// plan. All get the same context, so that a request that fits one fits every one.
//
//   ASSIGN_OR_RETURN(auto plans, plan_variants({{"base", cost, request}, ...}, 8192, system));
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "plan/memory_model.h"

namespace puna::plan {

struct VariantToPlan {
  std::string name;
  BackendCost cost;
  PlanRequest request;  // of all but the first with `beside_another`; the first's budget counts
};

// What is left after every variant has the least that it needs is divided evenly; what one does not
// take goes to those after it. Errors: kResourceExhausted with what they need together, else as
// plan_memory().
Result<std::vector<MemoryPlan>> plan_variants(std::span<const VariantToPlan> variants,
                                              int32_t max_position, const SystemMemory& system);

}  // namespace puna::plan
