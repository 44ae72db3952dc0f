// SPDX-License-Identifier: Apache-2.0
#include "plan/variant_plans.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "kv/block_id.h"
#include "plan/ledger.h"
#include "plan/test_sizes.h"

namespace puna::plan {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// A variant with so many bytes of packed weights, and keys and values of `kv_bytes` a token.
VariantToPlan variant(std::string name, uint64_t weights, uint64_t kv_bytes, uint64_t budget,
                      bool beside) {
  VariantToPlan made;
  made.name = std::move(name);
  made.cost = [weights, kv_bytes](const engine::CpuBackendConfig& config) {
    engine::CpuBackendBytes bytes;
    bytes.weights = weights;
    bytes.loading = kMiB;
    bytes.kv = static_cast<uint64_t>(config.num_blocks) * kv::kBlockTokens * kv_bytes;
    bytes.activations = static_cast<uint64_t>(config.max_batch_tokens) * 16384;
    bytes.sampling = kMiB;
    return bytes;
  };
  made.request.model = made.name + ".gguf";
  made.request.threads = 2;
  made.request.budget_bytes = budget;
  made.request.beside_another = beside;
  if (!beside) made.request.tokenizer_bytes = 5 * kMiB;
  if (!beside) made.request.runtime_bytes = 10 * kMiB;
  return made;
}

std::vector<VariantToPlan> three(uint64_t budget) {
  return {variant("base", 160 * kMiB, 32 << 10, budget, false),
          variant("q8", 100 * kMiB, 32 << 10, 0, true),
          variant("q4", 60 * kMiB, 16 << 10, 0, true)};
}

uint64_t total(const std::vector<MemoryPlan>& plans) {
  return std::accumulate(plans.begin(), plans.end(), uint64_t{0},
                         [](uint64_t sum, const MemoryPlan& plan) { return sum + plan.total(); });
}

TEST(VariantPlans, AllFitOneBudgetAndShareOneContext) {
  for (const uint64_t budget : {600 * kMiB, 800 * kMiB, 1200 * kMiB, 4 * kGiB, 16 * kGiB}) {
    const auto plans = plan_variants(three(budget), kContext, {64 * kGiB, 60 * kGiB});
    ASSERT_TRUE(plans.ok()) << plans.error().message();
    ASSERT_EQ(plans->size(), 3U);
    EXPECT_LE(total(*plans), budget);
    uint64_t budgets = 0;
    for (const MemoryPlan& plan : *plans) {
      EXPECT_EQ(plan.max_model_len, plans->front().max_model_len);
      EXPECT_GE(plan.num_blocks, kv::blocks_for_tokens(plan.max_model_len));
      EXPECT_GT(plan.host.max_request_bytes, 0);
      budgets += plan.budget;
    }
    EXPECT_EQ(budgets, budget);
  }
}

TEST(VariantPlans, WhatTheProcessHasOnceIsInTheFirstPlan) {
  const auto plans = plan_variants(three(2 * kGiB), kContext, {64 * kGiB, 60 * kGiB});
  ASSERT_TRUE(plans.ok()) << plans.error().message();
  for (const Owner owner :
       {Owner::kBodies, Owner::kConnections, Owner::kTokenizer, Owner::kRuntime}) {
    EXPECT_GT((*plans)[0].of(owner), 0U);
    EXPECT_EQ((*plans)[1].of(owner), 0U);
    EXPECT_EQ((*plans)[2].of(owner), 0U);
  }
  EXPECT_GT((*plans)[0].program, 0U);
  EXPECT_EQ((*plans)[1].program, 0U);
  EXPECT_EQ((*plans)[1].host.max_connections, 0);
}

TEST(VariantPlans, WithoutABudgetThePoolsStayPolite) {
  const auto plans = plan_variants(three(0), kContext, {8 * kGiB, 6 * kGiB});
  ASSERT_TRUE(plans.ok()) << plans.error().message();
  uint64_t pools = 0;
  for (const MemoryPlan& plan : *plans) pools += plan.of(Owner::kKvPool);
  EXPECT_LE(pools, 6 * kGiB / 4);
  EXPECT_LE(total(*plans), 6 * kGiB);
}

TEST(VariantPlans, TheBudgetThatTheAdviceNamesWorks) {
  const auto refused = plan_variants(three(200 * kMiB), kContext, {64 * kGiB, 60 * kGiB});
  ASSERT_FALSE(refused.ok());
  const std::string message = refused.error().message();
  EXPECT_THAT(message, HasSubstr("base "));
  EXPECT_THAT(message, HasSubstr("q4 "));
  const std::string_view advice = "raise --memory-budget to at least ";
  const size_t at = message.find(advice);
  ASSERT_NE(at, std::string::npos) << message;
  const uint64_t mib = std::stoull(message.substr(at + advice.size()));
  const auto plans = plan_variants(three(mib * kMiB), kContext, {64 * kGiB, 60 * kGiB});
  ASSERT_TRUE(plans.ok()) << plans.error().message();
  EXPECT_LE(total(*plans), mib * kMiB);
}

TEST(VariantPlans, AChosenContextIsEveryVariants) {
  std::vector<VariantToPlan> variants = three(2 * kGiB);
  for (VariantToPlan& one : variants) one.request.max_model_len = 2048;
  const auto plans = plan_variants(variants, kContext, {64 * kGiB, 60 * kGiB});
  ASSERT_TRUE(plans.ok()) << plans.error().message();
  for (const MemoryPlan& plan : *plans) EXPECT_EQ(plan.max_model_len, 2048);
}

TEST(VariantPlans, TheLedgerSumsByOwnerAndShowsEachVariant) {
  const auto plans = plan_variants(three(2 * kGiB), kContext, {64 * kGiB, 60 * kGiB});
  ASSERT_TRUE(plans.ok()) << plans.error().message();
  std::vector<Ledger::Part> parts;
  const std::vector<std::string> names = {"base", "q8", "q4"};
  for (size_t i = 0; i < names.size(); ++i) parts.push_back({names[i], (*plans)[i]});
  const Ledger ledger(parts);
  std::vector<LiveUse> uses(3);
  uses[0] = {.requests_running = 1, .request_bytes = 100, .connections = 2};
  uses[1] = {.kv_usage = 0.5, .requests_waiting = 4, .request_bytes = 30};
  uses[2] = {.kv_usage = 1.0, .requests_running = 2};
  const Ledger::Bytes used = ledger.used(uses);
  EXPECT_EQ(used[index_of(Owner::kRequests)], 130U);
  EXPECT_EQ(used[index_of(Owner::kWeightsPacked)], 320 * kMiB);
  const uint64_t q8_block =
      (*plans)[1].of(Owner::kKvPool) / static_cast<uint64_t>((*plans)[1].num_blocks);
  EXPECT_NEAR(static_cast<double>(used[index_of(Owner::kKvPool)]),
              static_cast<double>((*plans)[1].of(Owner::kKvPool)) / 2 +
                  static_cast<double>((*plans)[2].of(Owner::kKvPool)),
              static_cast<double>(q8_block));
  const std::string json = ledger.json(uses);
  EXPECT_THAT(json, HasSubstr(R"("budget_bytes":2147483648)"));
  EXPECT_THAT(json, HasSubstr(R"({"owner":"weights_packed","planned_bytes":335544320,)"));
  EXPECT_THAT(json, HasSubstr(R"("queue":{"requests":4,"tokens":0,"running":3})"));
  EXPECT_THAT(json, HasSubstr(R"({"variant":"q8","kv_dtype":"bf16",)"));
  EXPECT_THAT(json, HasSubstr(R"({"owner":"weights_packed","planned_bytes":62914560,)"));
  const std::string metrics = ledger.metrics(uses);
  EXPECT_THAT(metrics, HasSubstr("puna:memory_bytes{owner=\"weights_packed\"} 335544320\n"));
  EXPECT_THAT(metrics,
              HasSubstr("puna:variant_memory_bytes{variant=\"q4\",owner=\"weights_packed\"}"
                        " 62914560\n"));
  EXPECT_THAT(Ledger((*plans)[0]).json(uses[0]), Not(HasSubstr("variant")));
}

}  // namespace
}  // namespace puna::plan
