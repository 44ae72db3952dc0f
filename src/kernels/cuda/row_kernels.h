// SPDX-License-Identifier: Apache-2.0
// Kernels that work on one row at a time: look-up, norm, rotation, activation. Each enqueues on a
// stream and returns. A row's bits depend on that row alone: sums run in an order given by the
// number of columns.
#pragma once

#include <cstdint>

#include "base/numeric.h"
#include "kernels/cuda/stream.h"

namespace puna::kernels::cuda {

// Columns must be a multiple of this, and kMaxColumns at most, where a whole row is kept in
// registers.
inline constexpr int32_t kColumnUnit = 8;
inline constexpr int32_t kMaxHidden = 16384;

// out[row] = table[tokens[row]], or the row of last_tokens[slots[row]] when tokens[row] is -1.
struct EmbedArgs {
  const int32_t* tokens;
  const int32_t* slots;
  const int32_t* last_tokens;
  const Float16* table;  // [vocab_size, hidden]
  float* out;            // [rows, hidden]
  int32_t rows;
  int32_t hidden;
};
void embed(const EmbedArgs& args, Stream stream);

// residual[row] += the sum of its `parts` pieces, in order; out[i] = norm of it times `weight`.
// With `row_index`, i of `rows` stands for row row_index[i], and the residual is not written.
struct AddNormArgs {
  float* residual;       // [*, hidden]
  const float* pieces;   // piece p of a row at p * piece_stride + row * hidden; null with parts 0
  int64_t piece_stride;  // floats
  int32_t parts;
  const int32_t* row_index;  // null: all rows
  const float* weight;       // [hidden]
  float eps;
  Float16* out;  // [rows, hidden]
  int32_t rows;
  int32_t hidden;
};
void add_norm(const AddNormArgs& args, Stream stream);

// Queries and keys rotated (pairs 2i, 2i + 1), keys and values stored into their cells.
struct RotateArgs {
  const Float16* qkv;        // [rows, (num_heads + 2 * num_kv_heads) * head_dim]
  const int32_t* positions;  // [rows]
  const int32_t* cells;      // [rows]: block * 16 + place in it; -1: not stored
  const float* rotations;    // [max positions, head_dim / 2, (cos, sin)]
  Float16* queries;          // [rows, num_heads * head_dim]
  Float16* kv;               // of one layer: kv_layout.h
  int32_t rows;
  int32_t num_heads;
  int32_t num_kv_heads;
  int32_t head_dim;
};
void rotate_and_store(const RotateArgs& args, Stream stream);

// Rows row_index[0 … rows) of queries and residual, one after the other.
struct GatherArgs {
  const int32_t* row_index;  // [rows]
  const Float16* queries;    // [*, q_size]
  Float16* queries_out;      // [rows, q_size]
  int32_t q_size;            // a multiple of kColumnUnit, as hidden
  const float* residual;     // [*, hidden]
  float* residual_out;       // [rows, hidden]
  int32_t hidden;
  int32_t rows;
};
void gather_rows(const GatherArgs& args, Stream stream);

// out = silu(gate) * up, where a row of gate_up is gate then up; f16's largest number where it is
// more.
void swiglu(const Float16* gate_up, Float16* out, int32_t rows, int32_t intermediate,
            Stream stream);

// In place, from bf16 as a file has it: exact but for numbers below 2^-17 in size, which keep f16's
// steps of 2^-24, and those beyond f16's largest, which become that one. `count` is even.
void from_bfloat16(Float16* values, int64_t count, Stream stream);

// Values from a normal-like distribution of the given deviation, a pure function of (seed, index):
// of all that f16 has, or of those that bf16 has too, as most models' weights.
enum class RandomValues { kOfFloat16, kOfBFloat16 };
void fill_random(Float16* out, int64_t count, uint64_t seed, float deviation, RandomValues values,
                 Stream stream);
void fill_value(float* out, int64_t count, float value, Stream stream);

}  // namespace puna::kernels::cuda
