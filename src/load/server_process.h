// SPDX-License-Identifier: Apache-2.0
// A server of our own to test: this program again, as `puna serve`.
//
//   ASSIGN_OR_RETURN(const auto server, ServerProcess::start({"--model", path}, 60 *
//   kNsPerSecond)); parse_url(server->url());
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace puna::load {

class ServerProcess {
 public:
  // Waits until it listens, on a free port. Its log goes to stderr. Errors: it ended, it is late.
  static Result<std::unique_ptr<ServerProcess>> start(const std::vector<std::string>& serve_flags,
                                                      TimeNs timeout_ns);
  ~ServerProcess();  // ends it the hard way when stop() was not called
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  const std::string& url() const { return url_; }
  pid_t pid() const { return pid_; }
  // SIGTERM, and its exit code; -1 when it does not end in time or was killed by a signal.
  int stop(TimeNs timeout_ns);

 private:
  ServerProcess(pid_t pid, int output_fd) : pid_(pid), output_fd_(output_fd) {}
  Result<> wait_for_url(TimeNs timeout_ns);

  pid_t pid_;
  int output_fd_;  // its stdout; kept open, so that it can always write
  std::string url_;
};

// VmRSS of a process; 0 when it can't be read.
int64_t resident_bytes(pid_t pid);

}  // namespace puna::load
