// SPDX-License-Identifier: Apache-2.0
// Where keys and values stand, and how they get there. The cache is [layer][block][kv head], each
// entry with the keys of 16 positions ("slots"), their values and their scales:
//
//          keys                     values                      scales of keys, of values
//   f32    [head_dim][16]           [16][padded]
//   bf16   [head_dim / 2][16][2]    [8][padded][2]
//   int8   as bf16, in bytes                                    [16] f32, [16] f32
//
// So a row of keys, 64 bytes or 32, holds one step of 16 scores, and a row of values one step of a
// weighted sum; `padded` is head_dim rounded up to 16. After the blocks comes the scratch of
// attention over lanes (see attention.cc), a few permille of the whole.
//
//   const KvWriter writer(kv, stores);
//   writer.store(KvPart::kKey, layer, sequence.block_table, position, head, values);
//
// What is stored is finite: values beyond the format's range become its largest, NaN becomes 0.
// Two lanes may store to different slots or heads at the same time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/ops.h"

namespace puna::kernels {

enum class KvPart : uint8_t { kKey, kValue };

class KvLayout {
 public:
  explicit KvLayout(const KvCache& cache) : KvLayout(cache.shape, cache.data) {}

  // Of the whole cache. UINT64_MAX when the product overflows, which no allocation satisfies.
  static uint64_t bytes(const KvShape& shape);

  const KvShape& shape() const { return shape_; }
  int64_t padded_dim() const { return padded_columns(shape_.head_dim); }
  std::byte* part(KvPart part, int64_t layer, int64_t block, int64_t kv_head) const {
    return entry(layer, block, kv_head) + (part == KvPart::kKey ? 0 : values_at_);
  }
  // int8 only: one per slot.
  float* scales(KvPart part, int64_t layer, int64_t block, int64_t kv_head) const {
    return reinterpret_cast<float*>(entry(layer, block, kv_head) + scales_at_) +
           (part == KvPart::kKey ? 0 : kKvBlockTokens);
  }
  // Of one (layer, block, kv head).
  int64_t entry_bytes() const { return entry_bytes_; }
  int64_t block_bytes() const { return entry_bytes_ * shape_.num_kv_heads; }
  // One element, as a number: for the scalar ops.
  float element(KvPart part, int64_t layer, const int32_t* block_table, int64_t position,
                int64_t kv_head, int64_t index) const;

  // Scratch of attention over lanes: counters, zero between steps, and slots, each of which holds
  // the state of one row and head (attention_state_floats).
  int32_t* scratch_counters() const { return reinterpret_cast<int32_t*>(data_ + blocks_bytes()); }
  float* scratch_slot(int64_t index) const;
  int64_t scratch_slots() const;
  int64_t blocks_bytes() const {
    return int64_t{shape_.num_layers} * shape_.num_blocks * block_bytes();
  }

 private:
  KvLayout(const KvShape& shape, std::byte* data);
  std::byte* entry(int64_t layer, int64_t block, int64_t kv_head) const {
    const int64_t index = (layer * shape_.num_blocks + block) * shape_.num_kv_heads + kv_head;
    return data_ + index * entry_bytes_;
  }
  int64_t scratch_bytes_per_block() const;

  KvShape shape_;
  std::byte* data_;
  int64_t values_at_ = 0;
  int64_t scales_at_ = 0;
  int64_t entry_bytes_ = 0;
};

// Where one position of one head goes.
struct KvSlot {
  std::byte* data = nullptr;  // the block's keys or values
  float* scale = nullptr;     // int8: this position's
  int64_t slot = 0;
};

// Stores `head_dim` f32 values. The bytes are the same in every table; f32 has no vectors to gain.
using KvStoreFunction = void (*)(const float* values, int64_t head_dim, const KvSlot& to);
struct KvStores {
  KvStoreFunction bf16_key = nullptr;
  KvStoreFunction bf16_value = nullptr;
  KvStoreFunction int8_key = nullptr;
  KvStoreFunction int8_value = nullptr;
};
const KvStores& scalar_kv_stores();

// int8: scale = largest magnitude / 127, but heads of less than this are stored as zeros (their
// inverse scale would overflow).
inline constexpr float kSmallestInt8Magnitude = 1e-30F;

class KvWriter {
 public:
  KvWriter(const KvCache& cache, const KvStores& stores);

  // A whole head: head_dim values.
  void store(KvPart part, int64_t layer, const int32_t* block_table, int64_t position, int64_t head,
             const float* values) const;

 private:
  KvLayout layout_;
  KvStoreFunction stores_[2] = {};  // of keys and of values
};

}  // namespace puna::kernels
