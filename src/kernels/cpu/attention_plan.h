// SPDX-License-Identifier: Apache-2.0
// How the attention of a step is cut into items for the lanes. A tile is some consecutive rows of
// one sequence times the query heads of one KV head; tiles begin at multiples of their size, a
// divisor of the chunk, so that no tile straddles a chunk. When there are few tiles, each is cut
// further into pieces of whole spans of positions; the spans' states then meet in the scratch, and
// whoever finishes a tile's last piece adds them up in order.
//
//   const AttentionPlan plan(sequences, layout, lanes);
//   AttentionPlan::Cursor cursor(plan);
//   lane.deal(plan.items(), [&](int64_t item) { run(cursor.at(item)); });
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cpu/kv_layout.h"
#include "kernels/ops.h"

namespace puna::kernels {

struct AttentionTile {
  const SequenceRows* sequence = nullptr;
  int64_t first = 0;  // row within the sequence's rows
  int64_t count = 0;
  int64_t kv_head = 0;
  int64_t first_position() const { return sequence->first_position + first; }
  int64_t end_position() const { return first_position() + count; }
};

// A tile, or some spans of it.
struct AttentionItem {
  AttentionTile tile;
  int64_t first_span = 0;
  int64_t end_span = 0;
  int64_t pieces = 1;      // of the tile; one means the whole tile, and no scratch
  int64_t index = 0;       // among all tiles
  int64_t first_slot = 0;  // of the tile's slots in the scratch
};

class AttentionPlan {
 public:
  AttentionPlan(std::span<const SequenceRows> sequences, const KvLayout& layout, int32_t lanes);

  int64_t items() const { return items_; }
  int64_t spans_per_piece() const { return spans_per_piece_; }

  // Finds items; fast when they come in nearly rising order.
  class Cursor {
   public:
    explicit Cursor(const AttentionPlan& plan) : plan_(plan) {}
    AttentionItem at(int64_t item);

   private:
    const AttentionPlan& plan_;
    size_t sequence_ = 0;
    int64_t items_before_ = 0;
    int64_t tiles_before_ = 0;
    int64_t slots_before_ = 0;
  };

 private:
  // Of one KV head of a sequence. A split tile has a slot, the state of one row, for each of its
  // rows and heads: of the first piece, and of each span after it.
  struct Counts {
    int64_t tiles = 0;
    int64_t items = 0;
    int64_t slots = 0;
  };
  Counts counts(const SequenceRows& sequence) const;
  Counts totals() const;
  int64_t tiles_of(const SequenceRows& sequence) const;
  AttentionTile tile(const SequenceRows& sequence, int64_t index) const;
  int64_t pieces(const AttentionTile& tile) const;
  int64_t slots(const AttentionTile& tile) const;

  std::span<const SequenceRows> sequences_;
  int64_t kv_heads_;
  int64_t group_;
  int64_t tile_positions_;
  int64_t spans_per_piece_ = 0;  // 0: tiles are whole
  int64_t items_ = 0;
};

}  // namespace puna::kernels
