// SPDX-License-Identifier: Apache-2.0
// Causal attention over paged keys and values, in f16 on tensor cores with f32 sums.
//
// One arithmetic for decode and prefill: keys are taken in tiles of kTileKeys with a running
// maximum inside a chunk of kChunkKeys absolute positions; chunks start afresh and are merged in
// rising order. Decode gives each chunk to another warp, and a second kernel merges them;
// prefill keeps a tile of queries and walks its chunks. Both give the same bits.
#pragma once

#include <cstdint>

#include "base/numeric.h"
#include "kernels/cuda/kv_layout.h"
#include "kernels/cuda/stream.h"

namespace puna::kernels::cuda {

inline constexpr int32_t kTileKeys = 64;
inline constexpr int32_t kChunkKeys = 256;
inline constexpr int32_t kMaxGroup = 16;  // query heads of a KV head

constexpr int32_t chunks_of_positions(int32_t positions) {
  return (positions + kChunkKeys - 1) / kChunkKeys;
}

// Rows first_row …: consecutive positions of one sequence.
struct QueryTile {
  int32_t first_row;
  int32_t num_rows;
  int32_t first_position;
  int32_t table_offset;  // of its block table in AttentionArgs::block_tables
};
// One chunk of a decode row, or the row; `row` counts the decode rows, for its partial results.
struct DecodeItem {
  int32_t row;
  int32_t position;
  int32_t table_offset;
  int32_t chunk;
};

struct AttentionShape {
  int32_t num_heads;
  int32_t num_kv_heads;
  int32_t head_dim;  // 16, 32, 64 or 128
};
bool attention_supports(const AttentionShape& shape);

struct AttentionArgs {
  AttentionShape shape;
  const Float16* queries;  // [rows, num_heads * head_dim]
  const Float16* kv;       // of one layer: kv_layout.h
  const int32_t* block_tables;
  Float16* out;  // [rows, num_heads * head_dim]
  float scale;   // of the scores
};

// Where decode's thread blocks leave what they found in rows of several chunks.
struct DecodeScratch {
  float* partials;  // partial_floats() for the most rows and chunks
  int32_t max_chunks;
};
int64_t partial_floats(const AttentionShape& shape, int32_t rows, int32_t max_chunks);

// Rows that come as the projection gave them: attention_decode() then does for them what
// rotate_and_store() would, and AttentionArgs::queries is not read.
struct UnrotatedRows {
  const Float16* qkv = nullptr;      // [rows, (num_heads + 2 * num_kv_heads) * head_dim]
  const float* rotations = nullptr;  // [max positions, head_dim / 2, (cos, sin)]
  Float16* kv = nullptr;             // AttentionArgs::kv, for the rows' own keys and values
};

// How thread blocks share decode rows. Each gives the same bits.
enum class DecodeWay : uint8_t {
  kChunks,     // items are chunks of rows
  kFewChunks,  // likewise, and a thread block has few: it reads far ahead
  kWholeRows,  // an item is all chunks of a row, rows with more chunks first
};
// Rows of one position each, all on the device, so that a graph may replay it.
struct DecodeRows {
  const DecodeItem* items;  // of all rows that there are
  const int32_t* num_items;
  const int32_t* positions;  // [num_rows]; 0 for a row that is there for the number's sake
  int32_t num_rows;
  DecodeWay way = DecodeWay::kChunks;
};
inline constexpr int32_t kDecodeWarps = 8;  // that keep a multiprocessor busy
inline constexpr int32_t kFewWarps = 3;     // of kFewChunks, which have room beside each other
// `blocks` is how many thread blocks share the items: one for each multiprocessor keeps it busy.
void attention_decode(const AttentionArgs& args, const UnrotatedRows& unrotated,
                      const DecodeRows& rows, const DecodeScratch& scratch, int32_t blocks,
                      Stream stream);

// How many rows a query tile may hold.
int32_t prefill_tile_rows(const AttentionShape& shape);
void attention_prefill(const AttentionArgs& args, const QueryTile* tiles, int32_t num_tiles,
                       Stream stream);

// Once, before the first call on a device: raises the kernels' shared-memory limits.
void prepare_attention();

}  // namespace puna::kernels::cuda
