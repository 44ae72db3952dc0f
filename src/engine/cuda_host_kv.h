// SPDX-License-Identifier: Apache-2.0
// Pinned host memory for KV blocks of paused sequences, and the copies there and back: on a stream
// of their own, one after the other, so that they order themselves; what they and a step do to the
// same block is ordered by events. The GPU is handed a few at a time, while the host waits for a
// step: a block is a piece per layer, and handing over takes about as long as copying. Allocates
// nothing after create(). Engine thread.
//
//   host_kv->save(copies);               // no step in flight
//   host_kv->order_step(batch, stream);  // the step waits where it has to
//   while (step_runs()) host_kv->hand_over();
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "engine/backend.h"
#include "engine/cuda_fault.h"
#include "kernels/cuda/pinned_pages.h"
#include "kernels/cuda/stream.h"

struct CUevent_st;

namespace puna::engine {

// Where blocks lie on the GPU: block b of a layer is the `piece_bytes` at layers[l] + b * that.
struct CudaKvBlocks {
  std::vector<std::byte*> layers;
  uint64_t piece_bytes = 0;
  int32_t num_blocks = 0;
  uint64_t block_bytes() const { return layers.size() * piece_bytes; }
};

class CudaHostKv {
 public:
  // `memory` is pinned and has room for `num_host_blocks`, at least one. A copy that takes longer
  // than `limit` ends the process: the GPU is lost.
  static std::unique_ptr<CudaHostKv> create(CudaKvBlocks blocks, kernels::cuda::PinnedPages memory,
                                            int32_t num_host_blocks,
                                            std::chrono::milliseconds limit, CudaFault& fault);
  ~CudaHostKv();
  CudaHostKv(const CudaHostKv&) = delete;
  CudaHostKv& operator=(const CudaHostKv&) = delete;

  // As Backend's.
  void save(std::span<const KvCopy> copies) { ask_for(copies, false); }
  uint64_t restore(std::span<const KvCopy> copies) { return ask_for(copies, true); }
  uint64_t copied();
  void wait_for_copy(uint64_t number);

  // Lets the step wait on its stream for all copies of blocks that it writes to.
  void order_step(const Batch& batch, kernels::cuda::Stream stream);
  // Hands a few of the copies that wait to the GPU. False: none wait, or it has enough for now.
  bool hand_over();

  uint64_t bytes() const { return memory_.bytes(); }

 private:
  struct Asked {
    KvCopy copy;
    bool to_device = false;
  };
  struct Group {  // of copies that were handed over in one call
    CUevent_st* done = nullptr;
    uint64_t last = 0;
  };

  CudaHostKv(CudaKvBlocks blocks, kernels::cuda::PinnedPages memory, int32_t num_host_blocks,
             std::chrono::milliseconds limit, CudaFault& fault);
  uint64_t ask_for(std::span<const KvCopy> copies, bool to_device);
  Asked& asked(uint64_t number) { return asked_[number % asked_.size()]; }
  Group& group(uint64_t number) { return groups_[number % groups_.size()]; }
  uint64_t group_end() const;
  void add_pieces(const Asked& asked);
  void hand_over_through(uint64_t number);
  void follow();

  const CudaKvBlocks blocks_;
  const kernels::cuda::PinnedPages memory_;  // [num_host_blocks, layers, piece_bytes]
  const std::chrono::milliseconds limit_;
  CudaFault& fault_;
  kernels::cuda::Stream stream_ = nullptr;
  // Numbers of copies count from 1: those up to done_ are done, up to handed_ the GPU has, up to
  // last_ were asked for.
  uint64_t done_ = 0;
  uint64_t handed_ = 0;
  uint64_t last_ = 0;
  std::vector<Asked> asked_;      // a ring: (handed_, last_]
  std::vector<uint64_t> copies_;  // [num_blocks]: the last copy from or to it
  std::vector<Group> groups_;     // a ring: [first_group_, next_group_)
  uint64_t first_group_ = 0;
  uint64_t next_group_ = 0;
  std::chrono::steady_clock::time_point moved_;  // the last time that a copy began or was done
  // Of one call, [kGroupBlocks * layers]
  std::vector<void*> to_;
  std::vector<const void*> from_;
  std::vector<size_t> sizes_;
};

}  // namespace puna::engine
