// SPDX-License-Identifier: Apache-2.0
// The items of a check are recognised as what they are: else a certificate would say nothing about
// the requests that it lets through.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "check/families/family.h"
#include "route/policy.h"
#include "route/task_family.h"

namespace puna {
namespace {

// 1740 of 1800 at the time of writing, and all 1487 that it was sure of (seed 991).
TEST(RouteFamilies, ItemsOfACheckAreRecognised) {
  constexpr int32_t kItems = 40;  // of each family and difficulty
  int all = 0;
  int right = 0;
  int sure = 0;
  int sure_and_right = 0;
  for (size_t family = 0; family < kNumTaskFamilies; ++family) {
    for (int32_t difficulty = 0; difficulty <= check::kMaxDifficulty; ++difficulty) {
      for (int32_t index = 0; index < kItems; ++index) {
        const check::Item item =
            check::make_item({static_cast<check::Family>(family), 991, index, difficulty});
        route::RequestSigns signs;
        for (const check::Message& message : item.messages) {
          (message.role == "system" ? signs.system : signs.user) = message.content;
        }
        const route::Classified found = route::classify(signs);
        const bool same = index_of(found.family) == family;
        ++all;
        right += same ? 1 : 0;
        if (found.confidence < route::kSureConfidence) continue;
        ++sure;
        sure_and_right += same ? 1 : 0;
      }
    }
  }
  fmt::print("{} of {} right; sure of {}, of these {} right\n", right, all, sure, sure_and_right);
  EXPECT_GE(right * 100, all * 94);
  EXPECT_GE(sure * 100, all * 75);
  EXPECT_GE(sure_and_right * 1000, sure * 990);
}

}  // namespace
}  // namespace puna
