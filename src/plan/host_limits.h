// SPDX-License-Identifier: Apache-2.0
// What the host side (sockets, bodies, waiting requests) may hold at once, and what that takes. A
// small budget gets small limits: who comes over them is told to come later, and no memory is
// needed for him.
#pragma once

#include <cstdint>

namespace puna::plan {

struct HostLimits {
  int32_t max_connections = 0;
  int64_t max_body_bytes = 0;        // of one request
  int64_t max_total_body_bytes = 0;  // of all that are being read
  int32_t work_threads = 0;          // parse long bodies
  int64_t max_request_bytes = 0;     // prompts and answers of all requests in the engine
};

// What is known about the requests that come.
struct HostNeeds {
  bool server = true;  // false: `puna run`, whose one request comes from a terminal
  int64_t max_queued_requests = 256;
  int64_t max_queued_tokens = 1 << 18;
  int32_t max_num_seqs = 32;
  int32_t max_model_len = 2048;
};

// The steps by which limits shrink; 0 is the default size.
inline constexpr int kHostSizes = 9;
HostLimits host_limits(const HostNeeds& needs, int size);

uint64_t request_bytes(const HostLimits& limits);
uint64_t body_bytes(const HostLimits& limits);
uint64_t connection_bytes(const HostLimits& limits);

}  // namespace puna::plan
