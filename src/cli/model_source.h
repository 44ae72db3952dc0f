// SPDX-License-Identifier: Apache-2.0
// What a model's weights and tokenizer come from: a file or folder, or a known shape with random
// weights (--random-weights) that a GPU makes. Main thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "cli/flags.h"
#include "formats/checkpoint.h"
#include "model/tokenizer.h"

namespace puna::cli {

// A tokenizer and the memory that it took.
struct MeasuredTokenizer {
  std::optional<model::Tokenizer> tokenizer = std::nullopt;
  uint64_t bytes = 0;
};
// The checkpoint's own, whose tables of it are freed.
Result<MeasuredTokenizer> load_tokenizer(formats::Checkpoint& checkpoint);

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
  // The checkpoint's own, or --tokenizer's, or a stand-in for random weights without one. Errors:
  // kInvalidArgument when it has tokens that the model hasn't.
  Result<MeasuredTokenizer> load_tokenizer(const ModelFlags& flags);
  // What reading a file left; what steps use comes back.
  void drop_pages() const;

 private:
  std::optional<formats::Checkpoint> checkpoint_;
  formats::ModelSpec spec_;
};

}  // namespace puna::cli
