// SPDX-License-Identifier: Apache-2.0
// Every row, head and span of a step belongs to exactly one item, whichever order items are asked
// for in, and no two tiles share scratch.
#include "kernels/cpu/attention_plan.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <tuple>
#include <vector>

#include "kernels/cpu/attention_kernels.h"

namespace puna::kernels {
namespace {

struct Step {
  int32_t heads;
  int32_t kv_heads;
  int32_t lanes;
  bool splits;
  std::vector<SequenceRows> sequences;
};

std::vector<Step> steps() {
  const SequenceRows decode{.num_rows = 1, .first_position = 8191};
  const SequenceRows prompt{.num_rows = 600, .first_position = 0};
  const SequenceRows middle{.num_rows = 5, .first_position = 1019};
  return {{32, 8, 2, false, {decode}},         {32, 8, 4, true, {decode}},
          {9, 3, 2, true, {decode}},           {9, 3, 2, false, {prompt}},
          {9, 3, 2, true, {middle}},           {8, 1, 16, true, {decode, middle, decode}},
          {64, 1, 3, false, {prompt, decode}}, {4, 4, 1, false, {decode, prompt, middle}},
          {1, 1, 64, true, {decode}}};
}

TEST(AttentionPlan, CoversEveryRowHeadAndSpanOnce) {
  for (const Step& step : steps()) {
    const KvShape shape{.num_layers = 1,
                        .num_blocks = 4096,
                        .num_heads = step.heads,
                        .num_kv_heads = step.kv_heads,
                        .head_dim = 64,
                        .type = KvType::kBF16};
    const KvLayout layout(KvCache{shape, nullptr});
    const AttentionPlan plan(step.sequences, layout, step.lanes);
    EXPECT_EQ(plan.spans_per_piece() > 0, step.splits) << step.heads << " " << step.lanes;
    AttentionPlan::Cursor cursor(plan);
    std::set<std::tuple<const SequenceRows*, int64_t, int64_t, int64_t>> seen;
    std::map<int64_t, int64_t> pieces_of_tile;
    for (int64_t item = plan.items() - 1; item >= 0; --item) {  // the slow direction
      const AttentionItem found = cursor.at(item);
      ++pieces_of_tile[found.index];
      const int64_t group = step.heads / step.kv_heads;
      EXPECT_LE(found.tile.count * group, kAttentionRows);
      const int64_t chunk = found.tile.first_position() / kAttentionChunk;
      EXPECT_EQ((found.tile.end_position() - 1) / kAttentionChunk, chunk);
      for (int64_t i = 0; i < found.tile.count; ++i) {
        for (int64_t span = found.first_span; span < found.end_span; ++span) {
          EXPECT_TRUE(
              seen.emplace(found.tile.sequence, found.tile.first + i, found.tile.kv_head, span)
                  .second);
        }
      }
    }
    size_t want = 0;
    for (const SequenceRows& sequence : step.sequences) {
      for (int64_t i = 0; i < sequence.num_rows; ++i) {
        const int64_t position = sequence.first_position + i;
        want += static_cast<size_t>((position / kAttentionSpan + 1) * step.kv_heads);
      }
    }
    EXPECT_EQ(seen.size(), want);
    for (int64_t item = 0; item < plan.items(); ++item) {
      const AttentionItem found = cursor.at(item);
      EXPECT_EQ(pieces_of_tile[found.index], found.pieces);
    }
  }
}

TEST(AttentionPlan, GivesEachTileItsOwnScratch) {
  for (const Step& step : steps()) {
    if (!step.splits) continue;
    const KvShape shape{.num_layers = 1,
                        .num_blocks = 4096,
                        .num_heads = step.heads,
                        .num_kv_heads = step.kv_heads,
                        .head_dim = 64,
                        .type = KvType::kInt8};
    const KvLayout layout(KvCache{shape, nullptr});
    const AttentionPlan plan(step.sequences, layout, step.lanes);
    AttentionPlan::Cursor cursor(plan);
    std::map<int64_t, std::pair<int64_t, int64_t>> slots;  // first and end, by tile
    for (int64_t item = 0; item < plan.items(); ++item) {
      const AttentionItem found = cursor.at(item);
      EXPECT_LT(found.index, kMostSplitTiles);
      if (found.pieces == 1) continue;
      const int64_t rows = found.tile.count * step.heads / step.kv_heads;
      const int64_t last = found.end_span - plan.spans_per_piece();
      auto& range = slots.try_emplace(found.index, found.first_slot, 0).first->second;
      EXPECT_EQ(range.first, found.first_slot);
      range.second = std::max(range.second, found.first_slot + (last + 1) * rows);
    }
    int64_t end = 0;
    for (const auto& [tile, range] : slots) {
      EXPECT_GE(range.first, end);
      end = range.second;
    }
    EXPECT_LE(end, layout.scratch_slots());
  }
}

TEST(AttentionPlan, KeepsTilesWholeWhenTheScratchIsShort) {
  const KvShape shape{.num_layers = 1,
                      .num_blocks = 64,  // all of them for one row, not for sixteen
                      .num_heads = 4,
                      .num_kv_heads = 1,
                      .head_dim = 64,
                      .type = KvType::kBF16};
  const KvLayout layout(KvCache{shape, nullptr});
  const SequenceRows one{.num_rows = 1, .first_position = 1023};
  const SequenceRows many{.num_rows = 16, .first_position = 1008};
  EXPECT_GT(AttentionPlan({&one, 1}, layout, 2).spans_per_piece(), 0);
  EXPECT_EQ(AttentionPlan({&many, 1}, layout, 2).spans_per_piece(), 0);
}

}  // namespace
}  // namespace puna::kernels
