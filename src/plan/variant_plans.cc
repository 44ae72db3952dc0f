// SPDX-License-Identifier: Apache-2.0
#include "plan/variant_plans.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <numeric>

#include "base/check.h"
#include "plan/byte_size.h"

namespace puna::plan {
namespace {

// Every variant with a context of `max_model_len` (0: what fits), one after the other.
Result<std::vector<MemoryPlan>> plan_each(std::span<const VariantToPlan> variants,
                                          int32_t max_position, int32_t max_model_len,
                                          const SystemMemory& system) {
  const bool given = variants.front().request.budget_bytes > 0;
  uint64_t left = given ? variants.front().request.budget_bytes : system.available;
  std::vector<uint64_t> least;
  for (const VariantToPlan& variant : variants) {
    PlanRequest request = variant.request;
    request.max_model_len = max_model_len;
    least.push_back(least_bytes(variant.cost, max_position, request));
  }
  uint64_t needed = std::accumulate(least.begin(), least.end(), uint64_t{0});
  if (needed > left) {
    std::string each;
    for (size_t i = 0; i < variants.size(); ++i) {
      fmt::format_to(std::back_inserter(each), "{}{} {}", i == 0 ? "" : ", ", variants[i].name,
                     format_bytes(least[i]));
    }
    return Error(ErrorCode::kResourceExhausted, "the variants need {} together ({}), but {} {}: {}",
                 format_bytes(needed), each, given ? "--memory-budget is" : "there is only",
                 format_bytes(left),
                 given ? fmt::format("raise --memory-budget to at least {}MiB", (needed >> 20) + 1)
                       : std::string("free memory or serve fewer variants"));
  }
  std::vector<MemoryPlan> plans;
  for (size_t i = 0; i < variants.size(); ++i) {
    const uint64_t spare = left - needed;
    const uint64_t part = least[i] + spare / (variants.size() - i);
    PlanRequest request = variants[i].request;
    request.max_model_len = max_model_len;
    request.budget_bytes = given ? part : 0;
    auto plan = plan_memory(variants[i].cost, max_position, request,
                            {.total = system.total, .available = part});
    if (!plan.ok()) {
      return std::move(plan).error().with_context(
          fmt::format("variant \"{}\" in its part of the memory", variants[i].name));
    }
    plan->budget = part;
    needed -= least[i];
    left -= std::min(part, plan->total() + plan->program);  // no room for the program: left out
    plans.push_back(*plan);
  }
  // What nobody took is the first's to show: the budgets add up to the whole.
  const uint64_t whole = given ? variants.front().request.budget_bytes : system.available;
  uint64_t others = 0;
  for (size_t i = 1; i < plans.size(); ++i) others += plans[i].budget = plans[i].total();
  plans.front().budget = whole - others;
  return plans;
}

}  // namespace

Result<std::vector<MemoryPlan>> plan_variants(std::span<const VariantToPlan> variants,
                                              int32_t max_position, const SystemMemory& system) {
  CHECK(!variants.empty());
  const int32_t wanted = variants.front().request.max_model_len;
  ASSIGN_OR_RETURN(const std::vector<MemoryPlan> plans,
                   plan_each(variants, max_position, wanted, system));
  const auto shorter = [](const MemoryPlan& a, const MemoryPlan& b) {
    return a.max_model_len < b.max_model_len;
  };
  const int32_t common = std::min_element(plans.begin(), plans.end(), shorter)->max_model_len;
  return plan_each(variants, max_position, common, system);
}

}  // namespace puna::plan
