// SPDX-License-Identifier: Apache-2.0
// An importance matrix: for each weight matrix, the mean square of every input column over some
// calibration text. Weight errors count by it. Reads and writes llama.cpp's imatrix files: GGUF
// (sums and counts per tensor) and the older .dat (means times the number of calls).
//
//   ASSIGN_OR_RETURN(ImportanceMatrix matrix, read_importance("model.imatrix.gguf"));
//   const std::vector<float>* columns = matrix.find("blk.0.attn_q.weight");
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace puna::quant {

struct ImportanceMatrix {
  struct Entry {
    std::vector<float> mean_squares;  // one per input column, finite and >= 0
    uint64_t tokens = 0;              // that it was measured on
  };
  std::map<std::string, Entry, std::less<>> entries;  // by the weight's name in GGUF
  std::vector<std::string> datasets;                  // names of the texts
  uint32_t chunks = 0;
  uint32_t chunk_tokens = 512;

  const std::vector<float>* find(std::string_view weight) const {
    const auto found = entries.find(weight);
    return found == entries.end() ? nullptr : &found->second.mean_squares;
  }
};

// Either format, told apart by its first bytes. Errors: kCorrupt for anything else, and for numbers
// that are not finite or negative; kUnsupported for mixtures of experts.
Result<ImportanceMatrix> read_importance(const std::string& path);

// The format by the name: GGUF for *.gguf, else .dat. Nothing is left of a file that failed.
Result<> write_importance(const ImportanceMatrix& matrix, const std::string& path);

}  // namespace puna::quant
