// SPDX-License-Identifier: Apache-2.0
// Copies of whole lines or blocks from global into shared memory by the copy engine of Hopper and
// newer GPUs: one thread starts them, and a barrier in shared memory knows when the bytes are
// there. Code for older GPUs compiles to nothing. Source: PTX ISA, cp.async.bulk, createpolicy and
// mbarrier.
#pragma once

#include <cstdint>

namespace puna::kernels::cuda {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define PUNA_BULK_COPY 1
#else
#define PUNA_BULK_COPY 0
#endif

// What the functions here and the tiles' take.
__device__ inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// By one thread, before the others are let at the barrier. Each of its phases has `arrivals`.
__device__ inline void init_copy_barrier(uint32_t barrier, uint32_t arrivals = 1) {
#if PUNA_BULK_COPY
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

__device__ inline void arrive(uint32_t barrier) {
#if PUNA_BULK_COPY
  asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(barrier) : "memory");
#endif
}

// Arrives, and the phase ends only when `bytes` have come too.
__device__ inline void expect_bytes(uint32_t barrier, uint32_t bytes) {
#if PUNA_BULK_COPY
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
#endif
}

// 16-byte aligned, a multiple of 16 bytes.
__device__ inline void copy_bulk(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
#if PUNA_BULK_COPY
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
#endif
}

// Of what is read once only: it makes room in the L2 cache before anything else does.
__device__ inline uint64_t read_once_policy() {
  uint64_t policy = 0;
#if PUNA_BULK_COPY
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
#endif
  return policy;
}
__device__ inline void copy_bulk(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier,
                                 uint64_t policy) {
#if PUNA_BULK_COPY
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
      "[%1], %2, [%3], %4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
#endif
}

// Until the phase of this parity has ended: 0 for the first, then 1, 0 …
__device__ inline void wait_for_bytes(uint32_t barrier, uint32_t parity) {
#if PUNA_BULK_COPY
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again_%=:\n"
      "mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
      "@done bra there_%=;\n"
      "bra again_%=;\n"
      "there_%=:\n"
      "}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
#endif
}

// Between ordinary writes to shared memory and a copy into the same place, or wgmma's reading of
// it.
__device__ inline void fence_before_copies() {
#if PUNA_BULK_COPY
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

}  // namespace puna::kernels::cuda
