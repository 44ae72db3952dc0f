// SPDX-License-Identifier: Apache-2.0
// What a Checkpoint owns, and the two ways to fill it. Internal to formats.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "formats/checkpoint.h"
#include "formats/gguf.h"
#include "formats/model_spec.h"
#include "formats/safetensors.h"

namespace puna::formats {

struct Checkpoint::State {
  std::string path;
  ModelSpec spec;
  std::unique_ptr<GgufFile> gguf;                     // one of these three holds
  std::unique_ptr<SafetensorsFolder> safetensors;     // the mapped bytes,
  std::shared_ptr<const std::byte> addresses;         // or just addresses
  std::vector<TensorView> weights;                    // by weight_index
  std::vector<std::unique_ptr<std::byte[]>> decoded;  // weights of a quantised folder
  uint64_t weight_bytes = 0;
  std::string type_summary;

  // Defined in gguf_checkpoint.cc and hugging_face_checkpoint.cc.
  static Result<std::unique_ptr<State>> from_gguf(GgufFile file);
  static Result<std::unique_ptr<State>> from_hugging_face(const std::string& folder);
};

}  // namespace puna::formats
