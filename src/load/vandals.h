// SPDX-License-Identifier: Apache-2.0
// Clients that behave badly on purpose, many at once, on a thread of their own: they leave in the
// middle, stall, flood, send half a request or poison.
//
//   Vandals vandals(target, endpoints, seed);
//   vandals.start();
//   ...
//   const VandalTally tally = vandals.stop();
#pragma once

#include <map>
#include <string>
#include <thread>

#include "load/http_connection.h"
#include "load/target.h"

namespace puna::load {

struct VandalTally {
  std::map<std::string, size_t> acts;
  size_t refusals = 0;
  size_t refusals_without_wait = 0;        // 429 without Retry-After
  std::map<std::string, size_t> accepted;  // poison that got 200 or a server error
};

class Vandals {
 public:
  Vandals(const Target& target, Endpoints endpoints, uint64_t seed);
  ~Vandals();
  Vandals(const Vandals&) = delete;
  Vandals& operator=(const Vandals&) = delete;

  void start();
  VandalTally stop();  // their connections are cut

 private:
  asio::awaitable<void> one(Random random);
  asio::awaitable<void> act(Random& random);
  asio::awaitable<void> flood(Random random);
  asio::awaitable<void> send_and_leave(std::string bytes, TimeNs after_ns, bool read);
  asio::awaitable<void> stall(std::string bytes, TimeNs for_ns);
  asio::awaitable<void> poison(size_t which);
  asio::awaitable<void> sleep(TimeNs for_ns);
  std::string long_request(Random& random) const;

  const Target target_;
  const Endpoints endpoints_;
  const uint64_t seed_;
  asio::io_context context_{1};
  VandalTally tally_;  // of thread_ while it runs
  std::thread thread_;
};

// Bodies that no server may answer with 200 or fall over.
struct Poison {
  std::string name;
  std::string path;
  std::string body;
};
std::vector<Poison> poisons(const std::string& model);

}  // namespace puna::load
