// SPDX-License-Identifier: Apache-2.0
// Products of a warpgroup (four warps, 64 rows) on Hopper's tensor cores, which run beside the
// warps that ask for them. Code for other GPUs compiles to nothing. Source: PTX ISA, wgmma; the
// layouts of results and of left operands in registers are those of mma.m16n8k16, 16 rows to a
// warp.
#pragma once

#include <cstdint>

namespace puna::kernels::cuda {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define PUNA_WGMMA 1
#else
#define PUNA_WGMMA 0
#endif

// What wgmma reads in shared memory: groups of eight rows, each of them slabs of 64 columns, each
// of them eight lines of 128 bytes with the 128-byte swizzle.
struct SwizzledTile {
  // `address` is a multiple of 1,024.
  __device__ SwizzledTile(uint32_t address, int slabs)
      : low(kSlabBytes / 16 << 16 | address / 16),
        high(kSwizzle128 | static_cast<uint32_t>(slabs) * kSlabBytes / 16) {}

  // The operand `bytes` from the start.
  __device__ uint64_t at(uint32_t bytes) const { return uint64_t{high} << 32 | (low + bytes / 16); }

  static constexpr uint32_t kSlabBytes = 1024;
  static constexpr uint32_t kSwizzle128 = uint32_t{1} << 30;
  uint32_t low;   // where it is, and the distance of slabs
  uint32_t high;  // the distance of eight rows
};

// The compiler may not move what touches these registers over this. Of 64 rows and 8 *
// kColumnGroups columns of results a thread has, of each group, what it has of its warp's rows in
// mma.m16n8k16.
template <int kColumnGroups>
__device__ inline void pin_results(float (&results)[kColumnGroups][4]) {
#pragma unroll
  for (int group = 0; group < kColumnGroups; ++group) {
#pragma unroll
    for (int i = 0; i < 4; ++i) asm volatile("" : "+f"(results[group][i])::"memory");
  }
}

// Before the first product after registers or shared memory were written.
__device__ inline void begin_products() {
#if PUNA_WGMMA
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
__device__ inline void commit_products() {
#if PUNA_WGMMA
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
// Until all but the last kPending commits are done.
template <int kPending>
__device__ inline void wait_for_products() {
#if PUNA_WGMMA
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
#endif
}

#define PUNA_GROUP(d, g) "+f"(d[g][0]), "+f"(d[g][1]), "+f"(d[g][2]), "+f"(d[g][3])
#define PUNA_FOUR_GROUPS(d, g) \
  PUNA_GROUP(d, g), PUNA_GROUP(d, g + 1), PUNA_GROUP(d, g + 2), PUNA_GROUP(d, g + 3)
#define PUNA_32_RESULTS                                                            \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21," \
  "%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define PUNA_32_MORE                                                                  \
  ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51," \
  "%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"

#define PUNA_64_MORE                                                             \
  ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79"             \
  ",%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"             \
  ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111" \
  ",%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"

// results = left * right^T for 64 rows on the right, 16 columns deep, both from shared memory;
// added to the results when `add`.
__device__ inline void multiply_lines(float (&results)[8][4], uint64_t left, uint64_t right,
                                      bool add) {
#if PUNA_WGMMA
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" PUNA_32_RESULTS
      "}, %32, %33, add, 1, 1, 0, 0;\n}\n"
      : PUNA_FOUR_GROUPS(results, 0), PUNA_FOUR_GROUPS(results, 4)
      : "l"(left), "l"(right), "r"(static_cast<int>(add)));
#endif
}

// The same for 256 rows on the right.
__device__ inline void multiply_lines(float (&results)[32][4], uint64_t left, uint64_t right,
                                      bool add) {
#if PUNA_WGMMA
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16 {" PUNA_32_RESULTS PUNA_32_MORE
          PUNA_64_MORE "}, %128, %129, add, 1, 1, 0, 0;\n}\n"
      : PUNA_FOUR_GROUPS(results, 0), PUNA_FOUR_GROUPS(results, 4), PUNA_FOUR_GROUPS(results, 8),
        PUNA_FOUR_GROUPS(results, 12), PUNA_FOUR_GROUPS(results, 16), PUNA_FOUR_GROUPS(results, 20),
        PUNA_FOUR_GROUPS(results, 24), PUNA_FOUR_GROUPS(results, 28)
      : "l"(left), "l"(right), "r"(static_cast<int>(add)));
#endif
}

// results = left * right, 16 deep: left from registers, right 16 rows of one or two slabs in shared
// memory.
__device__ inline void multiply_columns(float (&results)[8][4], const uint32_t (&left)[4],
                                        uint64_t right, bool add) {
#if PUNA_WGMMA
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" PUNA_32_RESULTS
      "}, {%32,%33,%34,%35}, %36, add, 1, 1, 1;\n}\n"
      : PUNA_FOUR_GROUPS(results, 0), PUNA_FOUR_GROUPS(results, 4)
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "l"(right),
        "r"(static_cast<int>(add)));
#endif
}
__device__ inline void multiply_columns(float (&results)[16][4], const uint32_t (&left)[4],
                                        uint64_t right, bool add) {
#if PUNA_WGMMA
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" PUNA_32_RESULTS PUNA_32_MORE
      "}, {%64,%65,%66,%67}, %68, add, 1, 1, 1;\n}\n"
      : PUNA_FOUR_GROUPS(results, 0), PUNA_FOUR_GROUPS(results, 4), PUNA_FOUR_GROUPS(results, 8),
        PUNA_FOUR_GROUPS(results, 12)
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "l"(right),
        "r"(static_cast<int>(add)));
#endif
}

#undef PUNA_GROUP
#undef PUNA_FOUR_GROUPS
#undef PUNA_32_RESULTS
#undef PUNA_32_MORE
#undef PUNA_64_MORE

// Among `count` threads, at one of the hardware's 16 barriers (0 is __syncthreads').
__device__ inline void sync_threads(int barrier, int count) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(count) : "memory");
}
__device__ inline void arrive_threads(int barrier, int count) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(count) : "memory");
}

// Registers of a warpgroup's threads: a kernel whose warpgroups differ shares them out anew.
template <int kRegisters>
__device__ inline void take_registers() {
#if PUNA_WGMMA
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
#endif
}
template <int kRegisters>
__device__ inline void leave_registers() {
#if PUNA_WGMMA
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
#endif
}

}  // namespace puna::kernels::cuda
