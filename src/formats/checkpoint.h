// SPDX-License-Identifier: Apache-2.0
// A model on disk, whatever its format: a GGUF file (the first shard names the others) or a Hugging
// Face folder (config.json + safetensors). Gives the ModelSpec and each weight by its role; the
// bytes stay in the mapped files, which the Checkpoint owns. Immutable after open, so any thread
// may read it.
//
//   ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::open("model.gguf"));
//   const TensorView& q = checkpoint.tensor({WeightRole::kAttnQ, /*layer=*/0});
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "formats/model_spec.h"
#include "formats/tensor_type.h"

namespace puna::formats {

class GgufFile;

enum class WeightRole : uint8_t {
  kTokenEmbedding,  // [vocab_size, hidden_size]
  kOutputNorm,      // [hidden_size]
  kOutputHead,      // [vocab_size, hidden_size]; the embedding's view when tied
  kAttnNorm,        // [hidden_size]
  kAttnQ,           // [num_heads * head_dim, hidden_size], rows in ModelSpec::rope_layout order
  kAttnK,           // [num_kv_heads * head_dim, hidden_size]
  kAttnV,           // [num_kv_heads * head_dim, hidden_size]
  kAttnOutput,      // [hidden_size, num_heads * head_dim]
  kFfnNorm,         // [hidden_size]
  kFfnGate,         // [intermediate_size, hidden_size]
  kFfnUp,           // [intermediate_size, hidden_size]
  kFfnDown,         // [hidden_size, intermediate_size]
};

struct WeightId {
  WeightRole role;
  int32_t layer = -1;  // -1 for the roles that do not belong to a layer
};

// A row-major matrix (or a vector: rows = 1) inside a mapped file. `columns` is contiguous and a
// multiple of the type's block_elements. `data` may be unaligned when it comes from safetensors.
struct TensorView {
  std::string_view name;  // its name in the file, for messages
  TensorType type = TensorType::kF32;
  int64_t rows = 0;
  int64_t columns = 0;
  std::span<const std::byte> data;
};

// Where the tokenizer and the chat template come from; read by model/tokenizer.h.
struct TokenizerSource {
  const GgufFile* gguf = nullptr;  // a GGUF model, else
  std::string folder;  // a Hugging Face folder: tokenizer.json or tokenizer.model inside
};

class Checkpoint {
 public:
  // Opens and validates `path`: every weight of the spec is present with the right shape, or the
  // error names the file and what is wrong with it.
  static Result<Checkpoint> open(const std::string& path);
  // The same from a GGUF file that is open already, or parsed from bytes that outlive the
  // Checkpoint.
  static Result<Checkpoint> from_gguf(GgufFile file);
  // Sizes without bytes, for planning: every matrix of `spec` in `type` (vectors in f32). Reading a
  // weight is a segmentation fault. Errors: kInvalidArgument when a row is not whole blocks,
  // kResourceExhausted when there are no addresses for so many bytes.
  static Result<Checkpoint> of_shape(const ModelSpec& spec, TensorType type,
                                     const std::string& name);

  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;
  ~Checkpoint();

  const std::string& path() const;
  const ModelSpec& spec() const;
  TokenizerSource tokenizer_source() const;
  // Frees what tokenizer_source() leads to, once the tokenizer is loaded.
  void forget_tokenizer();

  // The roles a spec needs are always there after open (CHECKed).
  const TensorView& tensor(WeightId id) const;

  uint64_t weight_bytes() const;  // of all tensors in the file
  std::string_view type_summary()
      const;  // "Q4_1" or "Q4_K + Q6_K": the types of the matrices, most bytes first

  // Tells the kernel that the pages of `tensor` are no longer needed (after packing copied them).
  void drop_pages(const TensorView& tensor) const;
  // The same of whole files: what is used in place comes back when it is touched.
  void drop_all_pages() const;

 private:
  struct State;
  explicit Checkpoint(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace puna::formats
