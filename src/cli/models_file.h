// SPDX-License-Identifier: Apache-2.0
// The table [[model]] of --config: one model, several variants of it in one server
// (docs/configuration.md).
//
//   [[model]]
//   name = "smol"
//   [[model.variant]]
//   name = "base"
//   path = "SmolLM2-Q8_0.gguf"
//   role = "base"
//   [[model.variant]]
//   name = "q4"
//   path = "SmolLM2-Q4_0.gguf"
//   kv-dtype = "int8"
//   certificate = "q4.json"        # of puna check: what requests it may answer
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "kernels/ops.h"

namespace puna::cli {

struct VariantConfig {
  std::string name;
  std::string path;
  std::optional<kernels::KvType> kv_dtype;  // else --kv-dtype
  std::string certificate;                  // empty: certified for nothing
  bool base = false;
  std::string where;  // "--config models.toml:7: model.variant q4", for messages
};

struct ModelConfig {
  std::string name;
  std::string certificate_key;          // the file that certificates were signed with; empty: usual
  std::vector<VariantConfig> variants;  // 1 to route::kMaxVariants, one of them the base
};

}  // namespace puna::cli
