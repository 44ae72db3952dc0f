// SPDX-License-Identifier: Apache-2.0
#include "engine/cuda_step_layout.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "engine/philox.h"
#include "engine/sampler.h"
#include "kernels/cuda/gemm.h"
#include "kv/block_id.h"

namespace puna::engine {
namespace {

namespace cuda = kernels::cuda;
using cuda::DecodeItem;
using cuda::DecodeWay;
using cuda::QueryTile;

static_assert(sizeof(DecodeItem) == sizeof(QueryTile));
static_assert(cuda::kCellsPerBlock == kv::kBlockTokens);

bool decodes(const BatchItem& item) { return item.num_tokens == 1; }

// Those of the largest logit where the host samples.
cuda::SampleParams params_of(const BatchItem& item) {
  const SamplingParams& wanted = *item.sampling;
  cuda::SampleParams params = {};
  if (!sampled_on_device(item) || wanted.temperature < kGreedyTemperature) return params;
  params.uniform = uniform_at(wanted.seed, item.history.size());
  params.scale = 1.0F / wanted.temperature;
  params.top_p = wanted.top_p;
  params.min_p = wanted.min_p;
  params.top_k = wanted.top_k;
  return params;
}

constexpr int64_t kFewestChunks = cuda::kDecodeWarps;  // of a thread block
// What it costs to merge chunks of other thread blocks, and that waves of chunks end unevenly.
constexpr int64_t kSplitCostPercent = 108;

bool takes_whole_rows(std::span<const int32_t> chunks, const AttentionGrid& grid) {
  int64_t total = 0;
  for (const int32_t count : chunks) total += count;
  total *= grid.kv_heads;
  const int32_t blocks = grid.decode_blocks;
  const int32_t units = static_cast<int32_t>(chunks.size()) * grid.kv_heads;
  if (units == 0 || chunks[0] == 1 || total < kFewestChunks * blocks) return false;
  int64_t most = 0;
  for (int32_t block = 0; block < blocks; ++block) {
    int64_t load = 0;
    for (int32_t round = 0; round * blocks < units; ++round) {
      const int32_t unit = round * blocks + (round % 2 == 0 ? block : blocks - 1 - block);
      if (unit < units) load += chunks[static_cast<size_t>(unit / grid.kv_heads)];
    }
    most = std::max(most, load);
  }
  return 100 * most * blocks <= kSplitCostPercent * total;
}

}  // namespace

DecodeWay decode_way(std::span<const int32_t> chunks, const AttentionGrid& grid) {
  if (takes_whole_rows(chunks, grid)) return DecodeWay::kWholeRows;
  int64_t total = 0;
  for (const int32_t count : chunks) total += count;
  const bool few = total * grid.kv_heads <= int64_t{cuda::kFewWarps} * grid.decode_blocks;
  // The graph is that of the padded rows.
  const int32_t rows = cuda::padded_rows(static_cast<int32_t>(chunks.size()));
  return few && may_go(DecodeWay::kFewChunks, rows, grid) ? DecodeWay::kFewChunks
                                                          : DecodeWay::kChunks;
}

bool may_go(DecodeWay way, int32_t rows, const AttentionGrid& grid) {
  const int64_t units = int64_t{rows} * grid.kv_heads;
  switch (way) {
    case DecodeWay::kFewChunks:
      return units <= int64_t{cuda::kFewWarps} * grid.decode_blocks;
    case DecodeWay::kWholeRows:
      return 100 * int64_t{grid.decode_blocks} <= kSplitCostPercent * units;
    default:
      return true;
  }
}

bool sampled_on_device(const BatchItem& item) {
  const SamplingParams& params = *item.sampling;
  return params.top_logprobs < 0 && params.repetition_penalty == 1.0F &&
         params.frequency_penalty == 0.0F && params.presence_penalty == 0.0F &&
         params.logit_bias.empty() && item.banned.empty();
}

// Tiles: one per sequence besides the full ones, which hold at least one row each.
int64_t CudaStepLayout::words_for(const BackendLimits& limits) {
  const int64_t sequences = limits.max_num_seqs;
  const int64_t rows = std::max(limits.max_batch_tokens, cuda::padded_rows(limits.max_num_seqs));
  const int64_t chunks = cuda::chunks_of_positions(limits.max_model_len);
  const int64_t blocks = kv::blocks_for_tokens(limits.max_model_len);
  const int64_t logit_rows = cuda::padded_rows(limits.max_num_seqs);
  return kHeader + 4 * rows + (3 + kParamWords) * logit_rows + 3 * kItemWords +
         kItemWords * (2 * sequences * chunks + sequences + rows) + sequences * blocks;
}

CudaStepLayout::CudaStepLayout(const BackendLimits& limits, const AttentionGrid& grid,
                               int32_t* memory)
    : limits_(limits), grid_(grid), memory_(memory) {
  order_.reserve(static_cast<size_t>(limits.max_num_seqs));
  sample_items_.reserve(static_cast<size_t>(limits.max_num_seqs));
  tables_.reserve(static_cast<size_t>(limits.max_num_seqs));
  attended_.reserve(static_cast<size_t>(limits.max_num_seqs));
  chunks_.reserve(static_cast<size_t>(limits.max_num_seqs));
}

void CudaStepLayout::check_item(const BatchItem& item) const {
  CHECK(item.slot >= 0 && item.slot < limits_.max_num_seqs);
  CHECK(item.num_tokens >= 1 && item.first_position >= 0);
  CHECK_LE(item.first_position, limits_.max_model_len - item.num_tokens);
  CHECK(item.tokens.size() == static_cast<size_t>(item.num_tokens) ||
        (item.tokens.empty() && item.num_tokens == 1));
  const int32_t blocks = kv::blocks_for_tokens(item.first_position + item.num_tokens);
  CHECK_GE(item.block_table.size(), static_cast<size_t>(blocks));
  for (const kv::BlockId block : item.block_table.first(static_cast<size_t>(blocks)))
    CHECK(block >= 0 && block < limits_.num_blocks);
}

void CudaStepLayout::order_items(const Batch& batch) {
  CHECK_LE(batch.items.size(), static_cast<size_t>(limits_.max_num_seqs));
  order_.clear();
  sample_items_.clear();
  int32_t rows = 0;
  for (const bool decoding : {true, false}) {
    for (size_t i = 0; i < batch.items.size(); ++i) {
      const BatchItem& item = batch.items[i];
      if (decodes(item) != decoding) continue;
      check_item(item);
      order_.push_back(static_cast<int32_t>(i));
      rows += item.num_tokens;
    }
    if (decoding) num_decode_ = rows;
  }
  CHECK_LE(rows, limits_.max_batch_tokens);
  for (size_t i = 0; i < batch.items.size(); ++i) {
    if (batch.items[i].sample) sample_items_.push_back(static_cast<int32_t>(i));
  }
  samples_ = static_cast<int32_t>(sample_items_.size());
  all_decode_ = rows > 0 && num_decode_ == rows && samples_ == rows;
  rows_ = all_decode_ ? cuda::padded_rows(rows) : rows;
}

void CudaStepLayout::add_rows(const BatchItem& item, int32_t first_row,
                              std::span<const TokenId> host_tokens) {
  for (int32_t i = 0; i < item.num_tokens; ++i) {
    const int64_t row = first_row + i;
    const int32_t position = item.first_position + i;
    memory_[tokens() + row] = item.tokens.empty() ? host_tokens[static_cast<size_t>(item.slot)]
                                                  : item.tokens[static_cast<size_t>(i)];
    memory_[slots() + row] = item.slot;
    memory_[positions() + row] = position;
    memory_[cells() + row] =
        item.block_table[static_cast<size_t>(position / kv::kBlockTokens)] * kv::kBlockTokens +
        position % kv::kBlockTokens;
  }
}

void CudaStepLayout::set_params(int64_t place, const cuda::SampleParams& params) {
  std::memcpy(memory_ + sample_params() + kParamWords * place, &params, sizeof params);
}

void CudaStepLayout::pad_rows(int32_t used) {
  for (int64_t row = used; row < rows_; ++row) {
    memory_[tokens() + row] = 0;
    memory_[slots() + row] = 0;
    memory_[positions() + row] = 0;
    memory_[cells() + row] = -1;
    memory_[logit_row_index() + row] = static_cast<int32_t>(row);
    memory_[sample_slots() + row] = -1;
    set_params(row, {});
  }
}

void CudaStepLayout::add_attention(const Batch& batch) {
  int64_t items = 0;
  int64_t tiles = 0;
  for (const int32_t index : order_) {
    const BatchItem& item = batch.items[static_cast<size_t>(index)];
    if (decodes(item)) {
      items += cuda::chunks_of_positions(item.first_position + 1);
    } else {
      tiles += (item.num_tokens + grid_.tile_rows - 1) / grid_.tile_rows;
    }
  }
  tiles_at_ = decode_items() + items * kItemWords;
  words_ = tiles_at_ + tiles * kItemWords;
  num_tiles_ = static_cast<int32_t>(tiles);
  auto* tile = reinterpret_cast<QueryTile*>(memory_ + tiles_at_);
  tables_.clear();
  int32_t row = 0;
  for (const int32_t index : order_) {
    const BatchItem& item = batch.items[static_cast<size_t>(index)];
    const int32_t end = item.first_position + item.num_tokens;
    const auto blocks = static_cast<size_t>(kv::blocks_for_tokens(end));
    const auto table = static_cast<int32_t>(words_);
    std::memcpy(memory_ + words_, item.block_table.data(), blocks * sizeof(int32_t));
    words_ += static_cast<int64_t>(blocks);
    tables_.push_back(table);
    if (!decodes(item)) {
      for (int32_t done = 0; done < item.num_tokens; done += grid_.tile_rows) {
        *tile++ = {row + done, std::min(grid_.tile_rows, item.num_tokens - done),
                   item.first_position + done, table};
      }
    }
    row += item.num_tokens;
  }
  add_decode_items(batch);
  if (num_tiles_ > 0) add_last_items(batch);
}

// Samples are in the batch's order; among items that all decode it is that of the rows.
int32_t CudaStepLayout::logit_row_of(int32_t item) const {
  const auto place = std::lower_bound(sample_items_.begin(), sample_items_.end(), item);
  return static_cast<int32_t>(place - sample_items_.begin());
}

void CudaStepLayout::add_decode_items(const Batch& batch) {
  attended_.clear();
  for (int32_t row = 0; row < num_decode_; ++row) {
    const auto place = static_cast<size_t>(row);
    const BatchItem& item = batch.items[static_cast<size_t>(order_[place])];
    attended_.push_back({row, item.first_position, tables_[place], 0});
  }
  memory_[0] = write_items(decode_items(), decode_way_);
}

// In the order of the logits' rows.
void CudaStepLayout::add_last_items(const Batch& batch) {
  attended_.resize(static_cast<size_t>(samples_));
  last_items_at_ = (words_ + samples_ + kItemWords - 1) / kItemWords * kItemWords;
  for (size_t place = 0; place < order_.size(); ++place) {
    const BatchItem& item = batch.items[static_cast<size_t>(order_[place])];
    if (!item.sample) continue;
    const int32_t row = logit_row_of(order_[place]);
    const int32_t position = item.first_position + item.num_tokens - 1;
    attended_[static_cast<size_t>(row)] = {row, position, tables_[place], 0};
    memory_[last_positions() + row] = position;
  }
  memory_[1] = write_items(last_items(), last_way_);
  words_ = last_items_at_ + memory_[1] * kItemWords;
}

// Rows whole where that gives all thread blocks enough to do, else their chunks: whole chunks
// before the rows' last ones, which are shorter, so that thread blocks that take every so-manieth
// one have equal work.
int32_t CudaStepLayout::write_items(int64_t place, DecodeWay& way) {
  auto* const first = reinterpret_cast<DecodeItem*>(memory_ + place);
  DecodeItem* next = first;
  std::sort(attended_.begin(), attended_.end(), [](const DecodeItem& a, const DecodeItem& b) {
    return a.position != b.position ? a.position > b.position : a.row < b.row;
  });
  chunks_.clear();
  for (const DecodeItem& item : attended_)
    chunks_.push_back(cuda::chunks_of_positions(item.position + 1));
  way = puna::engine::decode_way(chunks_, grid_);
  if (way == DecodeWay::kWholeRows) {
    std::copy(attended_.begin(), attended_.end(), first);
    return static_cast<int32_t>(attended_.size());
  }
  for (const bool last : {false, true}) {
    for (DecodeItem item : attended_) {
      const int32_t chunks = cuda::chunks_of_positions(item.position + 1);
      for (item.chunk = last ? chunks - 1 : 0; item.chunk < (last ? chunks : chunks - 1);
           ++item.chunk)
        *next++ = item;
    }
  }
  return static_cast<int32_t>(next - first);
}

void CudaStepLayout::lay_out(const Batch& batch, std::span<const TokenId> host_tokens) {
  order_items(batch);
  int32_t row = 0;
  int32_t decode_sample = 0;
  for (const int32_t index : order_) {
    const BatchItem& item = batch.items[static_cast<size_t>(index)];
    add_rows(item, row, host_tokens);
    row += item.num_tokens;
    if (!item.sample) continue;
    const int32_t place = logit_row_of(index);
    memory_[logit_row_index() + place] = row - 1;
    memory_[sample_slots() + place] = item.slot;
    set_params(place, params_of(item));
    ++decode_sample;
  }
  CHECK_EQ(decode_sample, samples_);
  if (all_decode_) pad_rows(row);
  add_attention(batch);
  CHECK_LE(words_, words_for(limits_));
}

}  // namespace puna::engine
