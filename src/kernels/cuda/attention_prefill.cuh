// SPDX-License-Identifier: Apache-2.0
// What the kernels for prefill attention share: a thread block has a tile of kPrefillRows query
// rows, positions times the query heads of one KV head.
#pragma once

#include "kernels/cuda/attention_tile.cuh"

namespace puna::kernels::cuda {

constexpr int kPrefillRows = 128;

struct PrefillArgs {
  AttentionArgs attention;
  const QueryTile* tiles;
};

// False where it can't: on other GPUs than Hopper, and for heads of 16 or 32 columns.
bool prefill_with_wgmma(const PrefillArgs& args, int32_t num_tiles, Stream stream);
void prepare_wgmma_prefill();

// The tile's rows from `warp_row` on, a warp's 16.
template <int kDim>
__device__ inline void write_rows(const AttentionArgs& attention, const QueryTile& tile,
                                  int kv_head, int group, int warp_row,
                                  const RowState<kDim>& total) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = warp_row + lane / 4 + 8 * half;
    if (row / group >= tile.num_rows) continue;
    Float16* out =
        attention.out + (int64_t{tile.first_row + row / group} * attention.shape.num_heads +
                         kv_head * group + row % group) *
                            kDim;
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i) {
      *reinterpret_cast<uint32_t*>(out + 8 * i + 2 * (lane % 4)) =
          to_half_pair(normalised(total.out[i][2 * half], total.weights.sum[half]),
                       normalised(total.out[i][2 * half + 1], total.weights.sum[half]));
    }
  }
}

}  // namespace puna::kernels::cuda
