// SPDX-License-Identifier: Apache-2.0
// What `puna inspect` says about a model, gathered from its file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "formats/model_spec.h"

namespace puna::cli {

struct TensorFacts {
  std::string name;
  std::string type;
  std::vector<uint64_t> shape;  // the last number is the contiguous one
  uint64_t bytes = 0;
};

struct TypeFacts {
  std::string type;
  uint64_t tensors = 0;
  uint64_t bytes = 0;
};

struct SpecialToken {
  int32_t id = 0;
  std::string text;
  std::string role;  // "bos", "eos", "end of generation", or empty
};

struct ModelFacts {
  std::string path;
  std::string format;       // "GGUF v3", "Hugging Face folder"
  uint64_t file_bytes = 0;  // of the weights for a folder
  formats::ModelSpec spec;
  uint64_t parameters = 0;
  uint64_t kv_bytes_per_token = 0;
  std::vector<TypeFacts> types;  // most bytes first
  std::vector<TensorFacts> tensors;
  std::string tokenizer;      // "byte-level BPE, llama-bpe, 128256 tokens"
  std::string chat_template;  // "chatml", or why there is none that Puna knows
  bool chat_template_known = false;
  std::vector<SpecialToken> special_tokens;
};

Result<ModelFacts> gather_facts(const std::string& path);

}  // namespace puna::cli
