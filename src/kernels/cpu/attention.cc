// SPDX-License-Identifier: Apache-2.0
// Causal attention over the paged cache, one scheme for prompts and single tokens. A tile's rows
// (attention_plan.h) pass over the positions together, so that each key and value is read once for
// all of them. Positions come in chunks, each with a step of the softmax's running maximum, and in
// spans: each span's state starts from zero, and spans are added up in rising order. Chunks and
// spans begin at multiples of their sizes, a row passes over every chunk up to its own position,
// and positions beyond it weigh exactly 0: so a row's bits don't depend on how rows are cut into
// tiles or spans are dealt to lanes.
#include <algorithm>
#include <atomic>
#include <cmath>

#include "kernels/cpu/attention_plan.h"
#include "kernels/cpu/cpu_ops.h"

namespace puna::kernels {
namespace {

constexpr int64_t kMostStateFloats = attention_state_floats(kMaxHeadDim);

class TileAttention {
 public:
  TileAttention(const CpuKernels& kernels, const KvCache& kv, int32_t layer,
                int64_t spans_per_piece)
      : kernels_(kernels.attention),
        panels_(kernels.panels),
        chunk_kernels_(kv.shape.type == KvType::kF32 ? kernels_.f32 : kernels_.bf16),
        cache_(kv),
        layer_(layer),
        head_dim_(kv.shape.head_dim),
        padded_dim_(cache_.padded_dim()),
        group_(kv.shape.num_heads / kv.shape.num_kv_heads),
        state_floats_(attention_state_floats(padded_dim_)),
        // Powers of two instead of e: one multiplication serves both.
        factor_(1.44269504F / std::sqrt(static_cast<float>(head_dim_))),
        spans_per_piece_(spans_per_piece) {}

  void run(const AttentionItem& item, FloatRows q, const Activations& out);

 private:
  // Where a chunk's blocks stand.
  struct Blocks {
    int64_t count = 0;
    const std::byte* keys[kChunkBlocks];
    const std::byte* values[kChunkBlocks];
    const float* key_scales[kChunkBlocks];
    const float* value_scales[kChunkBlocks];
  };

  int64_t rows() const { return tile_.count * group_; }
  bool int8() const { return cache_.shape().type == KvType::kInt8; }
  void load_queries(FloatRows q);
  void find_blocks(int64_t begin, int64_t end, Blocks& blocks) const;
  void attend_span(int64_t span, int64_t item_end, float* state);
  void attend_chunk(int64_t begin, int64_t count, bool more, float* state);
  void expand_chunk();
  void merge(const float* later, float* state) const;
  bool is_last_piece(const AttentionItem& item) const;
  void write(const float* state, const Activations& out);

  const AttentionKernels& kernels_;
  const PanelKernels& panels_;
  const ChunkKernels& chunk_kernels_;
  const KvLayout cache_;
  const int64_t layer_;
  const int64_t head_dim_;
  const int64_t padded_dim_;
  const int64_t group_;
  const int64_t state_floats_;
  const float factor_;
  const int64_t spans_per_piece_;

  AttentionTile tile_;
  Blocks blocks_;
  Blocks next_;  // of the next chunk; filled up with this one's
  int32_t visible_[kAttentionRows];
  float keep_[kAttentionRows + kRowAlign];
  alignas(64) std::byte queries_[kAttentionRows * kQueryStride];
  alignas(64) std::byte scores_[kAttentionRows * kScoreStride];
  alignas(64) float state_[kAttentionRows * kMostStateFloats];
  alignas(64) float span_state_[kAttentionRows * kMostStateFloats];
  // int8 as bf16.
  alignas(64) std::byte keys_[kAttentionChunk * kMaxHeadDim * 2];
  alignas(64) std::byte values_[kAttentionChunk * kMaxHeadDim * 2];
  alignas(64) float out_[kAttentionRows * kMaxHeadDim + kRowAlign];
};

void TileAttention::load_queries(FloatRows q) {
  for (int64_t row = 0; row < rows(); ++row) {
    const float* from = q.row(tile_.sequence->first_row + tile_.first + row / group_) +
                        (tile_.kv_head * group_ + row % group_) * head_dim_;
    chunk_kernels_.load_query(from, head_dim_, queries_ + row * kQueryStride);
  }
}

void TileAttention::find_blocks(int64_t begin, int64_t end, Blocks& blocks) const {
  blocks.count = 0;
  for (int64_t at = begin; at < end; at += kKvBlockTokens) {
    const int64_t block = tile_.sequence->block_table[at / kKvBlockTokens];
    const int64_t i = blocks.count++;
    blocks.keys[i] = cache_.part(KvPart::kKey, layer_, block, tile_.kv_head);
    blocks.values[i] = cache_.part(KvPart::kValue, layer_, block, tile_.kv_head);
    blocks.key_scales[i] = cache_.scales(KvPart::kKey, layer_, block, tile_.kv_head);
    blocks.value_scales[i] = cache_.scales(KvPart::kValue, layer_, block, tile_.kv_head);
  }
}

// The chunk's blocks become bf16 in keys_ and values_.
void TileAttention::expand_chunk() {
  const int64_t key_count = kKvBlockTokens * head_dim_;
  const int64_t value_count = kKvBlockTokens * padded_dim_;
  for (int64_t i = 0; i < blocks_.count; ++i) {
    std::byte* keys = keys_ + i * key_count * 2;
    std::byte* values = values_ + i * value_count * 2;
    kernels_.expand(blocks_.keys[i], key_count, keys);
    kernels_.expand(blocks_.values[i], value_count, values);
    blocks_.keys[i] = keys;
    blocks_.values[i] = values;
  }
}

// blocks_ and next_ are set; `more`: next_ is another chunk, to be fetched.
void TileAttention::attend_chunk(int64_t begin, int64_t count, bool more, float* state) {
  if (int8()) expand_chunk();
  chunk_kernels_.scores({.q = queries_,
                         .rows = rows(),
                         .head_dim = head_dim_,
                         .blocks = blocks_.count,
                         .keys = blocks_.keys,
                         .next = more ? next_.keys : nullptr,
                         .next_is_int8 = int8(),
                         .scales = int8() ? blocks_.key_scales : nullptr,
                         .scores = scores_});
  for (int64_t row = 0; row < rows(); ++row) {
    const int64_t position = tile_.first_position() + row / group_;
    visible_[row] = static_cast<int32_t>(std::min(count, position + 1 - begin));
  }
  chunk_kernels_.weigh({.scores = scores_,
                        .rows = rows(),
                        .blocks = blocks_.count,
                        .visible = visible_,
                        .scales = int8() ? blocks_.value_scales : nullptr,
                        .factor = factor_,
                        .state = state,
                        .padded_dim = padded_dim_,
                        .keep = keep_});
  chunk_kernels_.add_values({.weights = scores_,
                             .rows = rows(),
                             .count = count,
                             .values = blocks_.values,
                             .next = more ? next_.values : nullptr,
                             .next_is_int8 = int8(),
                             .keep = keep_,
                             .state = state,
                             .padded_dim = padded_dim_});
}

// The state of one span. Finds blocks_ of its first chunk set, and leaves them set for the next
// span when the item goes on to `item_end`.
void TileAttention::attend_span(int64_t span, int64_t item_end, float* state) {
  for (int64_t row = 0; row < rows(); ++row) {
    float* to = state + row * state_floats_;
    std::fill_n(to, padded_dim_ + kRowAlign, 0.0F);
    to[padded_dim_ + kRowAlign] = -3.0e38F;  // the maximum so far: finite, to be subtracted
  }
  const int64_t end = std::min((span + 1) * kAttentionSpan, item_end);
  for (int64_t begin = span * kAttentionSpan; begin < end; begin += kAttentionChunk) {
    const int64_t after = begin + kAttentionChunk;
    const bool more = after < item_end;
    next_ = blocks_;
    if (more) find_blocks(after, std::min(after + kAttentionChunk, item_end), next_);
    attend_chunk(begin, std::min(kAttentionChunk, item_end - begin), more, state);
    blocks_ = next_;
  }
}

void TileAttention::merge(const float* later, float* state) const {
  for (int64_t row = 0; row < rows(); ++row) {
    kernels_.merge(later + row * state_floats_, padded_dim_, factor_, state + row * state_floats_);
  }
}

// Counts the pieces of a tile that are done; the last to count starts the counter anew.
bool TileAttention::is_last_piece(const AttentionItem& item) const {
  const std::atomic_ref<int32_t> done(cache_.scratch_counters()[item.index]);
  if (done.fetch_add(1, std::memory_order_acq_rel) + 1 < item.pieces) return false;
  done.store(0, std::memory_order_relaxed);
  return true;
}

void TileAttention::write(const float* state, const Activations& out) {
  for (int64_t i = 0; i < tile_.count; ++i) {
    // Rising heads: what a padded head writes beyond its end, the next one overwrites.
    for (int64_t head = 0; head < group_; ++head) {
      kernels_.finish(state + (i * group_ + head) * state_floats_, padded_dim_,
                      out_ + head * head_dim_);
    }
    store_activations(panels_, out_, tile_.sequence->first_row + tile_.first + i,
                      tile_.kv_head * group_ * head_dim_, group_ * head_dim_, out);
  }
}

void TileAttention::run(const AttentionItem& item, FloatRows q, const Activations& out) {
  tile_ = item.tile;
  load_queries(q);
  const int64_t end = std::min(item.end_span * kAttentionSpan, tile_.end_position());
  const int64_t begin = item.first_span * kAttentionSpan;
  find_blocks(begin, std::min(begin + kAttentionChunk, end), blocks_);
  const auto slot = [&](int64_t span) {
    const int64_t index = span < spans_per_piece_ ? 0 : span - spans_per_piece_ + 1;
    return cache_.scratch_slot(item.first_slot + index * rows());
  };
  if (item.first_span > 0) {
    for (int64_t span = item.first_span; span < item.end_span; ++span)
      attend_span(span, end, slot(span));
  } else {
    float* state = item.pieces == 1 ? state_ : slot(0);
    attend_span(0, end, state);
    for (int64_t span = 1; span < item.end_span; ++span) {
      attend_span(span, end, span_state_);
      merge(span_state_, state);
    }
  }
  if (item.pieces == 1) return write(state_, out);
  if (!is_last_piece(item)) return;
  const int64_t spans = (tile_.end_position() + kAttentionSpan - 1) / kAttentionSpan;
  for (int64_t span = spans_per_piece_; span < spans; ++span) merge(slot(span), slot(0));
  write(slot(0), out);
}

}  // namespace

void CpuOps::attention(Lane& lane, FloatRows q, std::span<const SequenceRows> sequences,
                       const KvCache& kv, int32_t layer, Activations out) const {
  const AttentionPlan plan(sequences, KvLayout(kv), lane.count());
  AttentionPlan::Cursor cursor(plan);
  TileAttention attention(kernels_, kv, layer, plan.spans_per_piece());
  lane.deal(plan.items(), [&](int64_t item) { attention.run(cursor.at(item), q, out); });
}

}  // namespace puna::kernels
