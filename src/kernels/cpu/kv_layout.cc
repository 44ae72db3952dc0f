// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/kv_layout.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/checked_math.h"
#include "base/numeric.h"
#include "kernels/cpu/attention_kernels.h"

namespace puna::kernels {
namespace {

constexpr int64_t kSlots = kKvBlockTokens;
constexpr int64_t kCounterBytes = kMostSplitTiles * int64_t{sizeof(int32_t)};

// Rounded up to whole cache lines.
int64_t lines(int64_t bytes) { return (bytes + 63) / 64 * 64; }

int64_t element_bytes(KvType type) {
  switch (type) {
    case KvType::kF32:
      return 4;
    case KvType::kBF16:
      return 2;
    case KvType::kInt8:
      return 1;
  }
  return 4;
}

// Index of an element among a block's keys or values (see the table in the header).
int64_t element_index(KvType type, KvPart part, int64_t padded, int64_t slot, int64_t index) {
  if (type == KvType::kF32) {
    return part == KvPart::kKey ? index * kSlots + slot : slot * padded + index;
  }
  return part == KvPart::kKey ? (index / 2 * kSlots + slot) * 2 + index % 2
                              : (slot / 2 * padded + index) * 2 + slot % 2;
}

float finite(float value) {
  constexpr float kLargest = 0x1.FEp127F;  // of bf16
  if (std::isnan(value)) return 0.0F;
  return std::clamp(value, -kLargest, kLargest);
}

template <KvPart part>
void store_f32(const float* values, int64_t head_dim, const KvSlot& to) {
  for (int64_t i = 0; i < head_dim; ++i) {
    const float value = finite(values[i]);
    const int64_t at = element_index(KvType::kF32, part, padded_columns(head_dim), to.slot, i);
    std::memcpy(to.data + 4 * at, &value, sizeof value);
  }
}

template <KvPart part>
void store_bf16(const float* values, int64_t head_dim, const KvSlot& to) {
  for (int64_t i = 0; i < head_dim; ++i) {
    const BFloat16 bits = to_bfloat16(finite(values[i]));
    const int64_t at = element_index(KvType::kBF16, part, padded_columns(head_dim), to.slot, i);
    std::memcpy(to.data + 2 * at, &bits, sizeof bits);
  }
}

template <KvPart part>
void store_int8(const float* values, int64_t head_dim, const KvSlot& to) {
  float most = 0.0F;
  for (int64_t i = 0; i < head_dim; ++i) most = std::max(most, std::abs(finite(values[i])));
  const bool zeros = most < kSmallestInt8Magnitude;
  const float inverse = zeros ? 0.0F : 127.0F / most;
  *to.scale = zeros ? 0.0F : most / 127.0F;
  for (int64_t i = 0; i < head_dim; ++i) {
    const auto quant = static_cast<int8_t>(std::nearbyint(finite(values[i]) * inverse));
    const int64_t at = element_index(KvType::kInt8, part, padded_columns(head_dim), to.slot, i);
    std::memcpy(to.data + at, &quant, sizeof quant);
  }
}

}  // namespace

const KvStores& scalar_kv_stores() {
  static constexpr KvStores kStores = {.bf16_key = store_bf16<KvPart::kKey>,
                                       .bf16_value = store_bf16<KvPart::kValue>,
                                       .int8_key = store_int8<KvPart::kKey>,
                                       .int8_value = store_int8<KvPart::kValue>};
  return kStores;
}

KvLayout::KvLayout(const KvShape& shape, std::byte* data) : shape_(shape), data_(data) {
  const int64_t element = element_bytes(shape.type);
  values_at_ = lines(kSlots * shape.head_dim * element);
  scales_at_ = values_at_ + lines(kSlots * padded_dim() * element);
  entry_bytes_ = scales_at_;
  if (shape.type == KvType::kInt8) entry_bytes_ += 2 * kSlots * int64_t{sizeof(float)};
}

// Enough to spread one row of a sequence that holds every block.
int64_t KvLayout::scratch_bytes_per_block() const {
  const int64_t state = attention_state_floats(padded_dim()) * int64_t{sizeof(float)};
  return lines(ceil_div(shape_.num_heads * state * kSlots, kAttentionSpan));
}

int64_t KvLayout::scratch_slots() const {
  return shape_.num_blocks * scratch_bytes_per_block() / int64_t{sizeof(float)} /
         attention_state_floats(padded_dim());
}

float* KvLayout::scratch_slot(int64_t index) const {
  return reinterpret_cast<float*>(data_ + blocks_bytes() + kCounterBytes) +
         index * attention_state_floats(padded_dim());
}

uint64_t KvLayout::bytes(const KvShape& shape) {
  const KvLayout layout(shape, nullptr);
  auto bytes =
      checked_mul(static_cast<uint64_t>(shape.num_layers), static_cast<uint64_t>(shape.num_blocks));
  if (bytes) bytes = checked_mul(*bytes, static_cast<uint64_t>(layout.block_bytes()));
  const int64_t scratch = kCounterBytes + shape.num_blocks * layout.scratch_bytes_per_block();
  if (bytes) bytes = checked_add(*bytes, static_cast<uint64_t>(scratch));
  return bytes.value_or(std::numeric_limits<uint64_t>::max());
}

float KvLayout::element(KvPart which, int64_t layer, const int32_t* block_table, int64_t position,
                        int64_t kv_head, int64_t index) const {
  const int64_t block = block_table[position / kSlots];
  const int64_t slot = position % kSlots;
  const int64_t at = element_index(shape_.type, which, padded_dim(), slot, index);
  const std::byte* from = part(which, layer, block, kv_head) + at * element_bytes(shape_.type);
  if (shape_.type == KvType::kF32) {
    float value = 0.0F;
    std::memcpy(&value, from, sizeof value);
    return value;
  }
  if (shape_.type == KvType::kBF16) {
    BFloat16 value;
    std::memcpy(&value, from, sizeof value);
    return to_float(value);
  }
  return static_cast<float>(static_cast<int8_t>(*from)) *
         scales(which, layer, block, kv_head)[slot];
}

KvWriter::KvWriter(const KvCache& cache, const KvStores& stores) : layout_(cache) {
  switch (cache.shape.type) {
    case KvType::kF32:
      stores_[0] = store_f32<KvPart::kKey>;
      stores_[1] = store_f32<KvPart::kValue>;
      break;
    case KvType::kBF16:
      stores_[0] = stores.bf16_key;
      stores_[1] = stores.bf16_value;
      break;
    case KvType::kInt8:
      stores_[0] = stores.int8_key;
      stores_[1] = stores.int8_value;
      break;
  }
}

void KvWriter::store(KvPart part, int64_t layer, const int32_t* block_table, int64_t position,
                     int64_t head, const float* values) const {
  const int64_t block = block_table[position / kSlots];
  const int64_t slot = position % kSlots;
  stores_[part == KvPart::kKey ? 0 : 1](values, layout_.shape().head_dim,
                                        {.data = layout_.part(part, layer, block, head),
                                         .scale = layout_.scales(part, layer, block, head) + slot,
                                         .slot = slot});
}

}  // namespace puna::kernels
