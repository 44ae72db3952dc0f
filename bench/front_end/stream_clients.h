// SPDX-License-Identifier: Apache-2.0
// Clients of the front-end bench: one thread that holds thousands of server-sent event streams open
// and does as little as it can with what comes in, so that the server is what is measured. Each
// stream asks again on the same connection when its answer has ended.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"

namespace puna::bench {

struct ClientReport {
  int64_t events = 0;  // tokens: the server writes one event for each
  int64_t bytes = 0;
  int64_t answers = 0;
  int64_t failed_streams = 0;
  int64_t fewest_events = 0;  // of any stream
  int64_t most_events = 0;
  double median_gap_ms = 0;  // the longest time without an event: of the median stream
  double longest_gap_ms = 0;
};

class StreamClients {
 public:
  // Connects; a stream's request is `request`, whole HTTP bytes.
  StreamClients(uint16_t port, int streams, std::string request);
  ~StreamClients();
  StreamClients(const StreamClients&) = delete;
  StreamClients& operator=(const StreamClients&) = delete;

  void ask();                    // sends every stream's first request
  bool all_started() const;      // every stream has had an event
  void read_for(TimeNs for_ns);  // reads, and asks again where an answer ended
  void reset();                  // forgets what was counted
  ClientReport report() const;

 private:
  struct Stream;
  void read_once(Stream& stream, TimeNs now_ns);

  const std::string request_;
  std::vector<Stream> streams_;
  std::vector<char> buffer_;
  int epoll_ = -1;
};

}  // namespace puna::bench
