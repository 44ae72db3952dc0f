// SPDX-License-Identifier: Apache-2.0
// What was measured to be fastest on this machine, kept between starts: one small text file for
// each thing that was tuned. A file counts only for the very machine it was written for, and whole;
// what it says is a hint, which the one who asks for it must still verify. One thread.
//
//   TuningStore store(folder, "NVIDIA H200, driver 580.95, cuBLASLt 130100");
//   if (const auto rows = store.recall("28672 x 4096"); !rows.empty()) ...
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace puna::kernels::cuda {

// The choice for a number of rows, in words that mean something to who made it.
struct TunedRows {
  int32_t rows = 0;
  std::vector<uint64_t> choice;
  bool operator==(const TunedRows&) const = default;
};

class TuningStore {
 public:
  TuningStore() = default;  // keeps nothing
  // `machine` is all that a choice depends on, in a line. The folder is made when it is needed.
  TuningStore(std::string folder, std::string machine)
      : folder_(std::move(folder)), machine_(std::move(machine)) {}

  // In rising rows; empty if there is none.
  std::vector<TunedRows> recall(std::string_view subject) const;
  // What goes wrong is in problem(): the next start will have to measure again, no more.
  void keep(std::string_view subject, std::span<const TunedRows> rows);
  const std::string& problem() const { return problem_; }  // the last one, with the path; or empty
  std::string path_of(std::string_view subject) const;
  const std::string& folder() const { return folder_; }

 private:
  std::string header(std::string_view subject) const;
  Result<> write(std::string_view subject, std::span<const TunedRows> rows) const;

  std::string folder_;
  std::string machine_;
  std::string problem_;
};

}  // namespace puna::kernels::cuda
