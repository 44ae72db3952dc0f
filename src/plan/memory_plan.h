// SPDX-License-Identifier: Apache-2.0
// Every byte that a server will take, by owner: what plan_memory() computes, `puna plan` and
// `serve` print, /metrics and /v1/ledger show. A value; any thread may read it.
//
//   MemoryPlan plan = ...;
//   std::cerr << plan.table();
//   plan.of(Owner::kKvPool);   // bytes
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "kernels/ops.h"
#include "plan/host_limits.h"

namespace puna::plan {

enum class Owner : uint8_t {
  kWeightsMapped,  // used straight from the file's pages
  kWeightsPacked,  // copies in the kernels' layout
  kKvPool,
  kKvIndex,      // who holds which block; the prefix cache's tokens and hashes
  kHostKv,       // blocks of paused requests, where a GPU has the pool
  kActivations,  // of the largest legal step
  kSampling,
  kRequests,     // prompts and answers of requests that wait, run, or are being read
  kBodies,       // HTTP bodies that are being read, and parsed
  kConnections,  // sockets, parsers, buffers, coroutine frames
  kTokenizer,    // and the model file's own tables
  kThreads,      // resident stacks
  kRuntime,      // heap, the libraries' data; of a GPU: context, graphs
};
inline constexpr size_t kNumOwners = 13;
inline constexpr size_t index_of(Owner owner) { return static_cast<size_t>(owner); }
// "kv_pool": the label in metrics and JSON.
std::string_view owner_name(Owner owner);

struct MemoryPlan {
  std::array<uint64_t, kNumOwners> bytes = {};
  // Of the model's file, resident besides the packed weights only while these are made. By then
  // neither KV pool nor activations are touched: no part of the total, but it has to fit as well.
  uint64_t loading = 0;
  // Resident as well, but not in the total (kProgramBytes): in the budget where it fits. 0 on a
  // GPU.
  uint64_t program = 0;

  int32_t num_blocks = 0;
  int32_t num_host_blocks = 0;
  int32_t max_model_len = 0;
  int32_t max_num_seqs = 0;
  int32_t max_batch_tokens = 0;
  kernels::KvType kv_type = kernels::KvType::kBF16;
  HostLimits host;
  bool on_device = false;     // a GPU's memory: the host's is not counted
  uint64_t budget = 0;        // what all of it must fit in
  bool budget_given = false;  // by --memory-budget; else the memory available at start

  uint64_t of(Owner owner) const { return bytes[index_of(owner)]; }
  uint64_t& of(Owner owner) { return bytes[index_of(owner)]; }
  uint64_t fixed() const;  // all but what grows with the number of KV blocks
  uint64_t total() const { return fixed() + of(Owner::kKvPool) + of(Owner::kKvIndex); }
  std::string_view kv_dtype() const;  // on a device f16, whose size bf16 has too
  // Lines of at most 80 columns.
  std::string table() const;
};

std::string_view kv_type_name(kernels::KvType type);

}  // namespace puna::plan
