// SPDX-License-Identifier: Apache-2.0
// Causal attention over the paged cache, one scheme for prompts and single tokens. A tile is some
// consecutive rows of one sequence times the query heads that share a KV head. Per chunk of 64
// positions its keys and values become f32 once for the whole tile; each tile row has a softmax per
// chunk, and chunks are blended in rising order. A row skips chunks beyond its position, and
// positions beyond it inside a chunk weigh exactly 0: neither changes a bit, so tiles may be cut
// anywhere.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/cpu_ops.h"

namespace puna::kernels {
namespace {

constexpr int64_t kChunk = CpuOps::kAttentionChunk;
constexpr int64_t kRows = CpuOps::kAttentionRows;
constexpr int64_t kMostDim = CpuOps::kMaxHeadDim;
constexpr int64_t kMostPositions = 16;  // rows of a sequence in a tile

// Some rows of one sequence with one KV head.
struct AttentionTile {
  const SequenceRows* sequence = nullptr;
  int64_t first = 0;  // row within the sequence's rows
  int64_t count = 0;
  int64_t kv_head = 0;
};

class TileAttention {
 public:
  TileAttention(const MicroKernels& kernels, const KvCache& kv, int32_t layer)
      : kernels_(kernels),
        cache_(kv),
        layer_(layer),
        head_dim_(kv.shape.head_dim),
        padded_dim_(padded_columns(kv.shape.head_dim)),
        group_(kv.shape.num_heads / kv.shape.num_kv_heads) {}

  void run(const AttentionTile& tile, FloatRows q, FloatRows out);

 private:
  void load_queries(const AttentionTile& tile, FloatRows q);
  void load_row(const std::byte* row, float* to) const;
  void load_chunk(const AttentionTile& tile, int64_t chunk, int64_t count);
  void attend_chunk(const AttentionTile& tile, int64_t chunk, int64_t count);
  int64_t position(const AttentionTile& tile, int64_t row) const {
    return tile.sequence->first_position + tile.first + row / group_;
  }

  const MicroKernels& kernels_;
  const KvLayout cache_;
  const int64_t layer_;
  const int64_t head_dim_;
  const int64_t padded_dim_;
  const int64_t group_;
  // Rows are padded_dim_ apart, except scores_: kChunk.
  alignas(64) float queries_[kRows * kMostDim];
  alignas(64) float keys_[kChunk * kMostDim];
  alignas(64) float values_[kChunk * kMostDim];
  alignas(64) float scores_[kRows * kChunk];
  alignas(64) float chunk_sums_[kRows * kMostDim];
  alignas(64) float sums_[kRows * kMostDim];  // of what was seen so far, relative to max_
  float max_[kRows];
  float total_[kRows];
};

void TileAttention::load_queries(const AttentionTile& tile, FloatRows q) {
  const float scale = 1.0F / std::sqrt(static_cast<float>(head_dim_));
  for (int64_t row = 0; row < tile.count * group_; ++row) {
    const float* from = q.row(tile.sequence->first_row + tile.first + row / group_) +
                        (tile.kv_head * group_ + row % group_) * head_dim_;
    float* to = queries_ + row * padded_dim_;
    for (int64_t d = 0; d < head_dim_; ++d) to[d] = from[d] * scale;
    std::fill(to + head_dim_, to + padded_dim_, 0.0F);
    std::fill_n(sums_ + row * padded_dim_, padded_dim_, 0.0F);
    max_[row] = -std::numeric_limits<float>::infinity();
    total_[row] = 0.0F;
  }
}

void TileAttention::load_row(const std::byte* row, float* to) const {
  if (cache_.shape.type == KvType::kF32) {
    std::memcpy(to, row, static_cast<size_t>(head_dim_) * sizeof(float));
  } else {
    kernels_.from_half(reinterpret_cast<const uint16_t*>(row), head_dim_, to);
  }
  std::fill(to + head_dim_, to + padded_dim_, 0.0F);
}

void TileAttention::load_chunk(const AttentionTile& tile, int64_t chunk, int64_t count) {
  const int32_t* table = tile.sequence->block_table;
  for (int64_t j = 0; j < count; ++j) {
    const int64_t at = chunk * kChunk + j;
    load_row(cache_.key(layer_, table, at, tile.kv_head), keys_ + j * padded_dim_);
    load_row(cache_.value(layer_, table, at, tile.kv_head), values_ + j * padded_dim_);
  }
}

void TileAttention::attend_chunk(const AttentionTile& tile, int64_t chunk, int64_t count) {
  const int64_t rows = tile.count * group_;
  kernels_.dot_tile({.a = queries_,
                     .a_stride = padded_dim_,
                     .m = rows,
                     .w = keys_,
                     .w_stride = padded_dim_,
                     .n = count,
                     .depth = padded_dim_,
                     .c = scores_,
                     .c_stride = kChunk});
  ChunkSoftmax parts[kRows];
  for (int64_t row = 0; row < rows; ++row) {
    float* scores = scores_ + row * kChunk;
    const int64_t visible = std::min(count, position(tile, row) + 1 - chunk * kChunk);
    std::fill(scores + count, scores + kChunk, 0.0F);
    if (visible > 0) {
      parts[row] = kernels_.softmax(scores, visible, kChunk);
    } else {
      std::fill(scores, scores + count, 0.0F);
    }
  }
  kernels_.weighted_sum({.p = scores_,
                         .p_stride = kChunk,
                         .m = rows,
                         .v = values_,
                         .v_stride = padded_dim_,
                         .count = count,
                         .columns = padded_dim_,
                         .out = chunk_sums_,
                         .out_stride = padded_dim_});
  for (int64_t row = 0; row < rows; ++row) {
    if (position(tile, row) < chunk * kChunk) continue;
    const float max = std::max(max_[row], parts[row].max);
    const float keep = std::exp(max_[row] - max);
    const float take = std::exp(parts[row].max - max);
    max_[row] = max;
    total_[row] = total_[row] * keep + parts[row].sum * take;
    kernels_.blend(chunk_sums_ + row * padded_dim_, padded_dim_, keep, take,
                   sums_ + row * padded_dim_);
  }
}

void TileAttention::run(const AttentionTile& tile, FloatRows q, FloatRows out) {
  load_queries(tile, q);
  const int64_t positions = position(tile, (tile.count - 1) * group_) + 1;
  for (int64_t chunk = 0; chunk * kChunk < positions; ++chunk) {
    const int64_t count = std::min(kChunk, positions - chunk * kChunk);
    load_chunk(tile, chunk, count);
    attend_chunk(tile, chunk, count);
  }
  for (int64_t row = 0; row < tile.count * group_; ++row) {
    float* to = out.row(tile.sequence->first_row + tile.first + row / group_) +
                (tile.kv_head * group_ + row % group_) * head_dim_;
    const float* from = sums_ + row * padded_dim_;
    for (int64_t d = 0; d < head_dim_; ++d) to[d] = from[d] / total_[row];
  }
}

// Calls use(tile, cost) for every tile of the step, in a fixed order. Cost: positions read x rows.
template <typename Use>
void for_each_attention_tile(std::span<const SequenceRows> sequences, int64_t kv_heads,
                             int64_t rows_per_tile, Use use) {
  for (const SequenceRows& sequence : sequences) {
    for (int64_t first = 0; first < sequence.num_rows; first += rows_per_tile) {
      const int64_t count = std::min<int64_t>(rows_per_tile, sequence.num_rows - first);
      const int64_t cost = (sequence.first_position + first + count) * (count + 1);
      for (int64_t head = 0; head < kv_heads; ++head) {
        use(AttentionTile{&sequence, first, count, head}, cost);
      }
    }
  }
}

}  // namespace

void CpuOps::attention(Lane& lane, FloatRows q, std::span<const SequenceRows> sequences,
                       const KvCache& kv, int32_t layer, Activations out) const {
  const int64_t kv_heads = kv.shape.num_kv_heads;
  const int64_t group = kv.shape.num_heads / kv_heads;
  const int64_t rows_per_tile = std::min(kMostPositions, kRows / group);
  int64_t total = 0;
  for_each_attention_tile(sequences, kv_heads, rows_per_tile,
                          [&](const AttentionTile&, int64_t cost) { total += cost; });
  // Lane i takes the tiles whose middle falls into its part of the total cost.
  TileAttention attention(kernels_, kv, layer);
  int64_t before = 0;
  for_each_attention_tile(sequences, kv_heads, rows_per_tile,
                          [&](const AttentionTile& tile, int64_t cost) {
                            const int64_t middle = before + cost / 2;
                            before += cost;
                            if (middle * lane.count() / total == lane.index())
                              attention.run(tile, q, float_rows(out));
                          });
}

}  // namespace puna::kernels
