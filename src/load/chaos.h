// SPDX-License-Identifier: Apache-2.0
// Does a server keep its promises among bad clients? First some answers are taken while all is
// quiet; then the same are asked for by patient clients while vandals are at work and the process
// is paused; at the end all must be as before.
//
//   ASSIGN_OR_RETURN(const ChaosReport report, run_chaos(target, options, {}));
//   for (const Promise& promise : report.promises) ... promise.kept
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "load/load_run.h"
#include "load/vandals.h"

namespace puna::load {

struct ChaosOptions {
  double duration_s = 60;
  double rate = 2;  // of the patient clients, requests/s
  pid_t pid = 0;    // of the server: it is paused, and its memory watched; 0: neither
  uint64_t seed = 0;
  TimeNs settle_ns = 60 * kNsPerSecond;  // for the last answers, and for the gauges to fall to 0
};

struct Promise {
  std::string name;
  bool kept = true;
  std::string detail;
};

struct ChaosReport {
  std::vector<Promise> promises;
  VandalTally vandals;
  size_t asked = 0;
  size_t answered = 0;
  size_t pauses = 0;
  bool kept() const;
};

// Blocks. `say` gets a line for each phase. Errors: the server does not answer while all is quiet.
Result<ChaosReport> run_chaos(const Target& target, const ChaosOptions& options,
                              const std::function<void(std::string_view)>& say);

}  // namespace puna::load
