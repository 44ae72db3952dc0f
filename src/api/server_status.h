// SPDX-License-Identifier: Apache-2.0
// What the server knows about itself: flags and cells that its threads write and /ready and
// /metrics read.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>

#include "base/metrics.h"

namespace puna::api {

struct ServerStatus {
  static constexpr std::array<int, 13> kCountedStatuses = {200, 400, 401, 404, 405, 408, 413,
                                                           417, 429, 431, 500, 503, 505};

  std::atomic<bool> ready{false};
  std::atomic<bool> draining{false};
  std::atomic<bool> stopping{false};  // queued work is no longer worth doing

  std::atomic<int> connections{0};     // open now
  std::atomic<int64_t> body_bytes{0};  // of requests that are being read
  Counter connections_accepted;
  Counter connections_refused;  // over max_connections
  Counter clients_gone;         // left while their answer was being made
  Counter write_timeouts;
  std::array<Counter, kCountedStatuses.size()> responses;

  void count_response(int status) {
    for (size_t i = 0; i < kCountedStatuses.size(); ++i) {
      if (kCountedStatuses[i] == status) responses[i].add();
    }
  }
};

}  // namespace puna::api
