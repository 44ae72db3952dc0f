// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/attention_plan.h"
#include "base/check.h"

#include <algorithm>
#include <bit>

#include "base/check.h"
#include "base/checked_math.h"
#include "kernels/cpu/attention_kernels.h"

namespace puna::kernels {
namespace {

constexpr int64_t kFewTilesPerLane = 4;
constexpr int64_t kPiecesPerLane = 8;

int64_t spans_of(const AttentionTile& tile) {
  return ceil_div(tile.end_position(), kAttentionSpan);
}

}  // namespace

AttentionPlan::AttentionPlan(std::span<const SequenceRows> sequences, const KvLayout& layout,
                             int32_t lanes)
    : sequences_(sequences),
      kv_heads_(layout.shape().num_kv_heads),
      group_(layout.shape().num_heads / layout.shape().num_kv_heads),
      tile_positions_(std::min(
          kAttentionChunk,
          static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(kAttentionRows / group_))))) {
  const Counts whole = totals();
  items_ = whole.items;
  if (lanes == 1 || whole.tiles >= kFewTilesPerLane * lanes || whole.tiles > kMostSplitTiles)
    return;
  int64_t spans = 0;
  for (const SequenceRows& sequence : sequences_) {
    for (int64_t i = 0; i < tiles_of(sequence); ++i) spans += spans_of(tile(sequence, i));
  }
  spans_per_piece_ = std::max<int64_t>(1, spans * kv_heads_ / (kPiecesPerLane * lanes));
  const Counts split = totals();
  if (split.slots <= layout.scratch_slots()) {
    items_ = split.items;
  } else {
    spans_per_piece_ = 0;
  }
}

int64_t AttentionPlan::tiles_of(const SequenceRows& sequence) const {
  const int64_t last = sequence.first_position + sequence.num_rows - 1;
  return last / tile_positions_ - sequence.first_position / tile_positions_ + 1;
}

AttentionTile AttentionPlan::tile(const SequenceRows& sequence, int64_t index) const {
  const int64_t begin = (sequence.first_position / tile_positions_ + index) * tile_positions_;
  const int64_t first = std::max<int64_t>(0, begin - sequence.first_position);
  const int64_t end =
      std::min<int64_t>(sequence.num_rows, begin + tile_positions_ - sequence.first_position);
  return {.sequence = &sequence, .first = first, .count = end - first};
}

int64_t AttentionPlan::pieces(const AttentionTile& tile) const {
  return spans_per_piece_ == 0 ? 1 : ceil_div(spans_of(tile), spans_per_piece_);
}

int64_t AttentionPlan::slots(const AttentionTile& tile) const {
  if (pieces(tile) == 1) return 0;
  return (1 + spans_of(tile) - spans_per_piece_) * tile.count * group_;
}

AttentionPlan::Counts AttentionPlan::counts(const SequenceRows& sequence) const {
  Counts counts{.tiles = tiles_of(sequence)};
  if (spans_per_piece_ == 0) {
    counts.items = counts.tiles;
    return counts;
  }
  for (int64_t i = 0; i < counts.tiles; ++i) {
    const AttentionTile part = tile(sequence, i);
    counts.items += pieces(part);
    counts.slots += slots(part);
  }
  return counts;
}

AttentionPlan::Counts AttentionPlan::totals() const {
  Counts totals;
  for (const SequenceRows& sequence : sequences_) {
    const Counts one = counts(sequence);
    totals.tiles += one.tiles * kv_heads_;
    totals.items += one.items * kv_heads_;
    totals.slots += one.slots * kv_heads_;
  }
  return totals;
}

AttentionItem AttentionPlan::Cursor::at(int64_t item) {
  if (item < items_before_) sequence_ = 0, items_before_ = tiles_before_ = slots_before_ = 0;
  AttentionPlan::Counts here = plan_.counts(plan_.sequences_[sequence_]);
  while (item >= items_before_ + here.items * plan_.kv_heads_) {
    items_before_ += here.items * plan_.kv_heads_;
    tiles_before_ += here.tiles * plan_.kv_heads_;
    slots_before_ += here.slots * plan_.kv_heads_;
    here = plan_.counts(plan_.sequences_[++sequence_]);
  }
  const SequenceRows& sequence = plan_.sequences_[sequence_];
  CHECK_GT(here.items, 0);
  const int64_t head = (item - items_before_) / here.items;
  int64_t left = (item - items_before_) % here.items;
  AttentionItem found;
  found.index = tiles_before_ + head * here.tiles;
  found.first_slot = slots_before_ + head * here.slots;
  // Whole tiles are found at once; there are few of the others.
  int64_t index = plan_.spans_per_piece_ == 0 ? left : 0;
  if (plan_.spans_per_piece_ == 0) left = 0;
  found.tile = plan_.tile(sequence, index);
  found.index += index;
  for (found.pieces = plan_.pieces(found.tile); left >= found.pieces;
       found.pieces = plan_.pieces(found.tile)) {
    left -= found.pieces;
    found.first_slot += plan_.slots(found.tile);
    found.tile = plan_.tile(sequence, ++index);
    ++found.index;
  }
  found.tile.kv_head = head;
  const int64_t spans = spans_of(found.tile);
  const int64_t per_piece = found.pieces == 1 ? spans : plan_.spans_per_piece_;
  found.first_span = left * per_piece;
  found.end_span = std::min(spans, found.first_span + per_piece);
  return found;
}

}  // namespace puna::kernels
