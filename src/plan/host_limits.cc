// SPDX-License-Identifier: Apache-2.0
#include "plan/host_limits.h"

#include <algorithm>

#include "base/json_memory.h"
#include "engine/request.h"
#include "engine/request_memory.h"

namespace puna::plan {
namespace {

constexpr int64_t kConnections = 1024;
constexpr int64_t kFewestConnections = 16;
constexpr int64_t kTotalBodies = int64_t{32} << 20;
constexpr int64_t kFewestTotalBodies = int64_t{64} << 10;
constexpr int64_t kLargestBody = int64_t{4} << 20;
// A usual request has room for so many tokens; a call may ask for more, up to the context.
constexpr int64_t kTokensPerRequest = 4096;
// What all running requests shall have room for, however small the limits: a chat that gives no
// max_tokens has room for the whole context.
constexpr int64_t kTokensPerSequence = 8192;

// Parser, read buffer, coroutine frames: 13 KiB were measured with 900 idle connections; and the
// frame that a stream writes.
constexpr uint64_t kBytesPerConnection = 20 << 10;
// Bodies of up to 8 KiB are parsed where they come in, on two I/O threads (api/connection.cc).
constexpr uint64_t kInlineBody = 8 << 10;
constexpr uint64_t kIoThreads = 2;

}  // namespace

HostLimits host_limits(const HostNeeds& needs, int size) {
  HostLimits limits;
  const int64_t longest = engine::request_bytes(0, needs.max_model_len, -1);
  const int64_t usual =
      engine::request_bytes(0, std::min<int64_t>(needs.max_model_len, kTokensPerRequest), -1);
  if (!needs.server) {
    limits.max_request_bytes = longest;
    return limits;
  }
  limits.max_connections = static_cast<int32_t>(
      std::max({kConnections >> size, kFewestConnections, int64_t{2} * needs.max_num_seqs}));
  limits.max_total_body_bytes = std::max(kTotalBodies >> size, kFewestTotalBodies);
  limits.max_body_bytes = std::min(limits.max_total_body_bytes / 4, kLargestBody);
  limits.work_threads = size < 3 ? 2 : 1;
  const int64_t running =
      engine::request_bytes(0, std::min<int64_t>(needs.max_model_len, kTokensPerSequence), -1);
  limits.max_request_bytes =
      std::max({longest, needs.max_num_seqs * running * 5 / 4,
                ((needs.max_queued_requests + needs.max_num_seqs) * usual +
                 needs.max_queued_tokens * static_cast<int64_t>(sizeof(engine::TokenId))) >>
                    size});
  return limits;
}

uint64_t request_bytes(const HostLimits& limits) {
  return static_cast<uint64_t>(limits.max_request_bytes);
}

uint64_t body_bytes(const HostLimits& limits) {
  if (limits.max_connections == 0) return 0;
  return static_cast<uint64_t>(limits.max_total_body_bytes) +
         static_cast<uint64_t>(limits.work_threads) *
             json_tree_limit(static_cast<uint64_t>(limits.max_body_bytes)) +
         kIoThreads * json_tree_limit(kInlineBody);
}

uint64_t connection_bytes(const HostLimits& limits) {
  return static_cast<uint64_t>(limits.max_connections) * kBytesPerConnection;
}

}  // namespace puna::plan
