// SPDX-License-Identifier: Apache-2.0
// A batch as the words that travel to the GPU at the start of a step: rows, block tables and the
// work of attention. Rows that decode come first. Up to the decode items, places depend on the
// number of rows alone, so that a graph can be replayed over them. Engine thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/backend.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/sampling.h"

namespace puna::engine {

// Else its row of logits goes to the host: logprobs, penalties, biases and bans are asked for.
bool sampled_on_device(const BatchItem& item);

// How attention's kernels take a step's rows.
struct AttentionGrid {
  int32_t tile_rows = 1;      // the most that a prefill tile holds
  int32_t kv_heads = 1;       // that a decode row is taken for
  int32_t decode_blocks = 1;  // thread blocks that share decode rows
};
// How rows with so many chunks, falling, go best: by whole rows, dealt to and fro, where thread
// blocks have chunks to merge, enough of them and about as many each.
kernels::cuda::DecodeWay decode_way(std::span<const int32_t> chunks, const AttentionGrid& grid);
// Whether it can be the way of so many rows, padded: those that a graph is captured for.
bool may_go(kernels::cuda::DecodeWay way, int32_t rows, const AttentionGrid& grid);

class CudaStepLayout {
 public:
  // `memory` has words_for() words.
  CudaStepLayout(const BackendLimits& limits, const AttentionGrid& grid, int32_t* memory);
  static int64_t words_for(const BackendLimits& limits);

  // Lays out `batch`. `host_tokens[slot]` is the slot's last token if the host knows better than
  // the device, else -1.
  void lay_out(const Batch& batch, std::span<const TokenId> host_tokens);

  // Every row is a decode row that is sampled, so a graph of rows() rows may run it.
  bool all_decode() const { return all_decode_; }
  int32_t rows() const { return rows_; }            // padded if all_decode
  int32_t num_samples() const { return samples_; }  // of the batch
  int32_t logit_rows() const { return all_decode_ ? rows_ : samples_; }
  int32_t num_decode() const { return num_decode_; }
  int32_t num_tiles() const { return num_tiles_; }
  // Of decode items, and of those of the last layer.
  kernels::cuda::DecodeWay decode_way() const { return decode_way_; }
  kernels::cuda::DecodeWay last_way() const { return last_way_; }
  int64_t words() const { return words_; }
  // Batch items in the order of the samples, which is that of the logits' rows.
  std::span<const int32_t> sample_items() const { return sample_items_; }

  // Places, in words from the start.
  int64_t tokens() const { return kHeader; }
  int64_t slots() const { return kHeader + rows_; }
  int64_t positions() const { return kHeader + 2 * int64_t{rows_}; }
  int64_t cells() const { return kHeader + 3 * int64_t{rows_}; }
  int64_t logit_row_index() const { return kHeader + 4 * int64_t{rows_}; }
  int64_t sample_slots() const { return logit_row_index() + logit_rows(); }
  int64_t sample_params() const { return (sample_slots() + logit_rows() + 3) / 4 * 4; }
  int64_t decode_items() const { return sample_params() + kParamWords * logit_rows(); }
  int64_t tiles() const { return tiles_at_; }
  // Of rows with logits, where there are tiles.
  int64_t last_items() const { return last_items_at_; }
  int64_t last_positions() const { return last_items_at_ - samples_; }

 private:
  static constexpr int64_t kHeader = 4;  // [0]: the number of decode items; [1]: of the last layer
  static constexpr int64_t kItemWords = 4;
  static constexpr int64_t kParamWords = sizeof(kernels::cuda::SampleParams) / 4;
  void check_item(const BatchItem& item) const;
  void order_items(const Batch& batch);
  void add_rows(const BatchItem& item, int32_t first_row, std::span<const TokenId> host_tokens);
  int32_t logit_row_of(int32_t item) const;
  void add_attention(const Batch& batch);
  void add_decode_items(const Batch& batch);
  void add_last_items(const Batch& batch);
  // Writes the items of attended_, and says how many and how they go.
  int32_t write_items(int64_t place, kernels::cuda::DecodeWay& way);
  void set_params(int64_t place, const kernels::cuda::SampleParams& params);
  void pad_rows(int32_t used);

  const BackendLimits limits_;
  const AttentionGrid grid_;
  int32_t* const memory_;
  std::vector<int32_t> order_;  // batch items, those that decode first
  std::vector<int32_t> sample_items_;
  std::vector<int32_t> tables_;                      // places of the block tables, in order_
  std::vector<kernels::cuda::DecodeItem> attended_;  // rows of write_items(), whole
  std::vector<int32_t> chunks_;                      // of these
  bool all_decode_ = false;
  kernels::cuda::DecodeWay decode_way_ = kernels::cuda::DecodeWay::kChunks;
  kernels::cuda::DecodeWay last_way_ = kernels::cuda::DecodeWay::kChunks;
  int32_t rows_ = 0;
  int32_t samples_ = 0;
  int32_t num_decode_ = 0;
  int32_t num_tiles_ = 0;
  int64_t tiles_at_ = 0;
  int64_t last_items_at_ = 0;
  int64_t words_ = 0;
};

}  // namespace puna::engine
