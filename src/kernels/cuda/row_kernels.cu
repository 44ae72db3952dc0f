// SPDX-License-Identifier: Apache-2.0
#include <cuda_bf16.h>

#include "base/check.h"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/kv_layout.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/row_kernels.h"

namespace puna::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

// The same for every thread; the order of the sum depends on the number of threads only.
__device__ float block_sum(float value) {
  __shared__ float of_warp[kWarps];
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(~0U, value, step);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0.0F;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) sum += of_warp[warp];
  return sum;
}

__global__ void embed_kernel(EmbedArgs args) {
  wait_for_previous_kernel();
  const int row = blockIdx.x;
  int token = args.tokens[row];
  if (token < 0) token = args.last_tokens[args.slots[row]];
  const auto* from = reinterpret_cast<const uint4*>(args.table + int64_t{token} * args.hidden);
  auto* to = reinterpret_cast<float4*>(args.out + int64_t{row} * args.hidden);
  for (int i = threadIdx.x; i < args.hidden / 8; i += kThreads) {
    const uint4 packed = from[i];
    const float2 a = to_floats(packed.x);
    const float2 b = to_floats(packed.y);
    const float2 c = to_floats(packed.z);
    const float2 d = to_floats(packed.w);
    to[2 * i] = {a.x, a.y, b.x, b.y};
    to[2 * i + 1] = {c.x, c.y, d.x, d.y};
  }
}

// kVectors: groups of four columns that a thread keeps.
template <int kVectors>
__global__ void __launch_bounds__(kThreads) add_norm_kernel(AddNormArgs args) {
  wait_for_previous_kernel();
  const int64_t row = args.row_index == nullptr ? blockIdx.x : args.row_index[blockIdx.x];
  const int vectors = args.hidden / 4;
  auto* residual = reinterpret_cast<float4*>(args.residual + row * args.hidden);
  const auto* weights = reinterpret_cast<const float4*>(args.weight);
  constexpr int kEarly = kVectors <= 4 ? kVectors : 0;  // weights that there are registers for
  float4 early[kEarly + 1];
  float4 values[kVectors];
  // All of a kind is loaded before any of it is needed, and stores come last: else each group of
  // columns would wait for the one before.
#pragma unroll
  for (int k = 0; k < kVectors; ++k) {
    const int i = k * kThreads + static_cast<int>(threadIdx.x);
    if (i >= vectors) break;
    values[k] = residual[i];
    if (k < kEarly) early[k] = weights[i];
  }
  for (int part = 0; part < args.parts; ++part) {
    const auto* piece =
        reinterpret_cast<const float4*>(args.pieces + part * args.piece_stride + row * args.hidden);
    float4 add[kVectors];
#pragma unroll
    for (int k = 0; k < kVectors; ++k) {
      const int i = k * kThreads + static_cast<int>(threadIdx.x);
      if (i < vectors) add[k] = piece[i];
    }
#pragma unroll
    for (int k = 0; k < kVectors; ++k) {
      values[k] = {values[k].x + add[k].x, values[k].y + add[k].y, values[k].z + add[k].z,
                   values[k].w + add[k].w};
    }
  }
  float squares = 0.0F;
#pragma unroll
  for (int k = 0; k < kVectors; ++k) {
    const int i = k * kThreads + static_cast<int>(threadIdx.x);
    if (i >= vectors) break;
    const float4 value = values[k];
    if (args.parts > 0 && args.row_index == nullptr) residual[i] = value;
    squares += value.x * value.x + value.y * value.y + value.z * value.z + value.w * value.w;
  }
  const float mean = block_sum(squares) / static_cast<float>(args.hidden);
  const float scale = 1.0F / sqrtf(mean + args.eps);
  auto* out = reinterpret_cast<uint2*>(args.out + int64_t{blockIdx.x} * args.hidden);
#pragma unroll
  for (int k = 0; k < kVectors; ++k) {
    const int i = k * kThreads + static_cast<int>(threadIdx.x);
    if (i >= vectors) break;
    const float4 weight = k < kEarly ? early[k] : weights[i];
    const float4 value = values[k];
    out[i] = {to_half_pair(value.x * scale * weight.x, value.y * scale * weight.y),
              to_half_pair(value.z * scale * weight.z, value.w * scale * weight.w)};
  }
}

__global__ void rotate_kernel(RotateArgs args) {
  wait_for_previous_kernel();
  constexpr int kUnit = kUnitElements;  // of a thread's turn
  const int row = blockIdx.x;
  const int position = args.positions[row];
  const int cell = args.cells[row];
  const int units_per_head = args.head_dim / kUnit;
  const int heads = args.num_heads + 2 * args.num_kv_heads;
  const auto* from =
      reinterpret_cast<const uint4*>(args.qkv) + int64_t{row} * heads * units_per_head;
  const auto* rotations =
      reinterpret_cast<const float2*>(args.rotations) + int64_t{position} * (args.head_dim / 2);
  for (int i = threadIdx.x; i < heads * units_per_head; i += kThreads) {
    const int head = i / units_per_head;
    const int unit = i % units_per_head;
    uint4 values = from[i];
    if (head < args.num_heads + args.num_kv_heads) {
      const float2* of_unit = rotations + unit * (kUnit / 2);
      values = {rotate_pair(values.x, of_unit[0]), rotate_pair(values.y, of_unit[1]),
                rotate_pair(values.z, of_unit[2]), rotate_pair(values.w, of_unit[3])};
    }
    if (head < args.num_heads) {
      reinterpret_cast<uint4*>(
          args.queries)[(int64_t{row} * args.num_heads + head) * units_per_head + unit] = values;
      continue;
    }
    if (cell < 0) continue;
    const int kv_index = head - args.num_heads;  // keys of all KV heads, then values
    const int64_t cells = kv_cells(cell / kCellsPerBlock, args.num_kv_heads,
                                   kv_index % args.num_kv_heads, kv_index >= args.num_kv_heads);
    reinterpret_cast<uint4*>(args.kv)[cells * kCellsPerBlock * units_per_head +
                                      placed_unit(cell % kCellsPerBlock, unit, units_per_head)] =
        values;
  }
}

__device__ uint32_t silu_pair(uint32_t gate, uint32_t up) {
  const float2 g = to_floats(gate);
  const float2 u = to_floats(up);
  return to_limited_half_pair(silu_product(g.x, u.x), silu_product(g.y, u.y));
}

__device__ void copy_row(const uint4* from, uint4* to, int count) {
  for (int i = threadIdx.x; i < count; i += kThreads) to[i] = from[i];
}

__global__ void gather_kernel(GatherArgs args) {
  wait_for_previous_kernel();
  const int64_t to = blockIdx.x;
  const int64_t from = args.row_index[to];
  copy_row(reinterpret_cast<const uint4*>(args.queries + from * args.q_size),
           reinterpret_cast<uint4*>(args.queries_out + to * args.q_size), args.q_size / 8);
  copy_row(reinterpret_cast<const uint4*>(args.residual + from * args.hidden),
           reinterpret_cast<uint4*>(args.residual_out + to * args.hidden), args.hidden / 4);
}

__global__ void swiglu_kernel(const Float16* gate_up, Float16* out, int intermediate) {
  wait_for_previous_kernel();
  const int units = intermediate / 8;
  const int unit = static_cast<int>(blockIdx.y) * kThreads + static_cast<int>(threadIdx.x);
  if (unit >= units) return;
  const int64_t row = blockIdx.x;
  const auto* from = reinterpret_cast<const uint4*>(gate_up) + row * 2 * units;
  const uint4 gate = from[unit];
  const uint4 up = from[units + unit];
  reinterpret_cast<uint4*>(out)[row * units + unit] = {
      silu_pair(gate.x, up.x), silu_pair(gate.y, up.y), silu_pair(gate.z, up.z),
      silu_pair(gate.w, up.w)};
}

// Sum of four uniform numbers, scaled to deviation 1.
__device__ float normal_like(uint64_t seed, uint64_t index) {
  uint64_t x = (index + seed * 0xD1342543DE82EF95ULL) * 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 29)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 32)) * 0x94D049BB133111EBULL;
  x ^= x >> 30;
  float sum = 0.0F;
  for (int part = 0; part < 4; ++part)
    sum += static_cast<float>((x >> (16 * part)) & 0xFFFF) / 65536.0F - 0.5F;
  return sum * 1.7320508F;
}

// In place: a thread reads its numbers before it writes them.
__global__ void from_bfloat16_kernel(uint32_t* values, int64_t pairs) {
  wait_for_previous_kernel();
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < pairs; i += stride) {
    const uint32_t pair = values[i];
    values[i] =
        to_limited_half_pair(__uint_as_float(pair << 16), __uint_as_float(pair & 0xFFFF0000U));
  }
}

__global__ void fill_random_kernel(Float16* out, int64_t count, uint64_t seed, float deviation,
                                   RandomValues values) {
  wait_for_previous_kernel();
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += stride) {
    float value = normal_like(seed, static_cast<uint64_t>(i)) * deviation;
    if (values == RandomValues::kOfBFloat16) value = __bfloat162float(__float2bfloat16_rn(value));
    reinterpret_cast<__half*>(out)[i] = __float2half_rn(value);
  }
}

__global__ void fill_value_kernel(float* out, int64_t count, float value) {
  wait_for_previous_kernel();
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) out[i] = value;
}

}  // namespace

void embed(const EmbedArgs& args, Stream stream) {
  CHECK_EQ(args.hidden % kColumnUnit, 0);
  launch(embed_kernel, dim3(static_cast<unsigned>(args.rows)), kThreads, 0, stream, args);
}

void add_norm(const AddNormArgs& args, Stream stream) {
  CHECK(args.hidden % kColumnUnit == 0 && args.hidden <= kMaxHidden);
  const dim3 grid(static_cast<unsigned>(args.rows));
  const int vectors = (args.hidden / 4 + kThreads - 1) / kThreads;
  if (vectors <= 1) {
    launch(add_norm_kernel<1>, grid, kThreads, 0, stream, args);
  } else if (vectors <= 4) {
    launch(add_norm_kernel<4>, grid, kThreads, 0, stream, args);
  } else {
    launch(add_norm_kernel<kMaxHidden / 4 / kThreads>, grid, kThreads, 0, stream, args);
  }
}

void rotate_and_store(const RotateArgs& args, Stream stream) {
  CHECK_EQ(args.head_dim % kColumnUnit, 0);
  launch(rotate_kernel, dim3(static_cast<unsigned>(args.rows)), kThreads, 0, stream, args);
}

void gather_rows(const GatherArgs& args, Stream stream) {
  CHECK(args.q_size % kColumnUnit == 0 && args.hidden % kColumnUnit == 0);
  launch(gather_kernel, dim3(static_cast<unsigned>(args.rows)), kThreads, 0, stream, args);
}

void swiglu(const Float16* gate_up, Float16* out, int32_t rows, int32_t intermediate,
            Stream stream) {
  CHECK_EQ(intermediate % kColumnUnit, 0);
  const int blocks = (intermediate / 8 + kThreads - 1) / kThreads;
  launch(swiglu_kernel, dim3(static_cast<unsigned>(rows), static_cast<unsigned>(blocks)), kThreads,
         0, stream, gate_up, out, intermediate);
}

void from_bfloat16(Float16* values, int64_t count, Stream stream) {
  CHECK_EQ(count % 2, 0);
  launch(from_bfloat16_kernel, 2048, kThreads, 0, stream, reinterpret_cast<uint32_t*>(values),
         count / 2);
}

void fill_random(Float16* out, int64_t count, uint64_t seed, float deviation, RandomValues values,
                 Stream stream) {
  launch(fill_random_kernel, 2048, kThreads, 0, stream, out, count, seed, deviation, values);
}

void fill_value(float* out, int64_t count, float value, Stream stream) {
  const auto blocks = static_cast<unsigned>((count + kThreads - 1) / kThreads);
  launch(fill_value_kernel, blocks, kThreads, 0, stream, out, count, value);
}

}  // namespace puna::kernels::cuda
