// SPDX-License-Identifier: Apache-2.0
// What a model's weights and tokenizer come from: a file or folder, or a known shape with random
// weights (--random-weights) that a GPU makes. Main thread.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "cli/flags.h"
#include "formats/checkpoint.h"
#include "model/tokenizer.h"

namespace puna::cli {

class ModelSource {
 public:
  // Errors name the flag that they are about.
  static Result<ModelSource> open(const ModelFlags& flags);

  const formats::ModelSpec& spec() const { return checkpoint_ ? checkpoint_->spec() : spec_; }
  // Null for random weights.
  const formats::Checkpoint* checkpoint() const { return checkpoint_ ? &*checkpoint_ : nullptr; }
  // "Q4_1", "random bf16"
  std::string type_summary() const;
  // Tells models apart in the hashes of the prefix cache.
  uint64_t digest() const;
  // The checkpoint's own, or --tokenizer's, or a stand-in for random weights without one.
  Result<model::Tokenizer> tokenizer(const ModelFlags& flags) const;

 private:
  std::optional<formats::Checkpoint> checkpoint_;
  formats::ModelSpec spec_;
};

// The GPU of --device cuda or cuda:N; nothing for cpu.
std::optional<int32_t> cuda_ordinal(const ModelFlags& flags);

}  // namespace puna::cli
