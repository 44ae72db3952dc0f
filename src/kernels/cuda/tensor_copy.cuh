// SPDX-License-Identifier: Apache-2.0
// Copies of boxes of a matrix between global and shared memory by Hopper's copy engine, from and
// into lines of 128 bytes with the 128-byte swizzle, as wgmma reads them (wgmma.cuh: tiles of one
// slab). One thread starts a copy. Code for older GPUs compiles to nothing. Source: PTX ISA,
// cp.async.bulk.tensor; barriers are bulk_copy.cuh's.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "base/numeric.h"
#include "kernels/cuda/bulk_copy.cuh"

namespace puna::kernels::cuda {

constexpr int kBoxColumns = 64;  // of f16: the 128 bytes of a line

// Of a matrix in boxes of so many rows. Host.
CUtensorMap box_map(const Float16* data, int64_t rows, int64_t columns, int box_rows,
                    CUtensorMapL2promotion promotion = CU_TENSOR_MAP_L2_PROMOTION_L2_256B);
// How many multiprocessors the GPU has; 0 if it does not run the kernel's code for sm_90a.
int multiprocessors_with_code(const void* kernel);

// The box whose first element is (row, column), into shared memory of this block; `barrier` counts
// its bytes. What is outside of the matrix becomes zeros.
__device__ inline void copy_box(uint32_t to, const CUtensorMap& from, int column, int row,
                                uint32_t barrier) {
#if PUNA_BULK_COPY
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3}], [%4];" ::"r"(to),
      "l"(&from), "r"(column), "r"(row), "r"(barrier)
      : "memory");
#endif
}

// The same by a policy of bulk_copy.cuh's.
__device__ inline void copy_box(uint32_t to, const CUtensorMap& from, int column, int row,
                                uint32_t barrier, uint64_t policy) {
#if PUNA_BULK_COPY
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
      "l"(&from), "r"(column), "r"(row), "r"(barrier), "l"(policy)
      : "memory");
#endif
}

// The first into the same place of every block of the cluster that `blocks` has a bit for, with the
// barrier of each.
__device__ inline void copy_box_to_blocks(uint32_t to, const CUtensorMap& from, int column, int row,
                                          uint32_t barrier, uint16_t blocks) {
#if PUNA_BULK_COPY
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
      "l"(&from), "r"(column), "r"(row), "r"(barrier), "h"(blocks)
      : "memory");
#endif
}

// Back; what is outside of the matrix is left out.
__device__ inline void store_box(const CUtensorMap& to, uint32_t from, int column, int row) {
#if PUNA_BULK_COPY
  asm volatile(
      "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(&to),
      "r"(column), "r"(row), "r"(from)
      : "memory");
#endif
}
__device__ inline void commit_stores() {
#if PUNA_BULK_COPY
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
#endif
}
// Until shared memory may be written again.
__device__ inline void wait_for_stores() {
#if PUNA_BULK_COPY
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
#endif
}

// Until what was stored is there.
__device__ inline void finish_stores() {
#if PUNA_BULK_COPY
  asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
#endif
}

// Arrives at the barrier in the same place of another block of the cluster.
__device__ inline void arrive_at_block(uint32_t barrier, uint32_t block) {
#if PUNA_BULK_COPY
  asm volatile(
      "{\n.reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n}\n" ::"r"(barrier),
      "r"(block)
      : "memory");
#endif
}
__device__ inline uint32_t block_in_cluster() {
  uint32_t rank = 0;
#if PUNA_BULK_COPY
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
#endif
  return rank;
}
__device__ inline void sync_cluster() {
#if PUNA_BULK_COPY
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                   : "memory");
#endif
}

}  // namespace puna::kernels::cuda
