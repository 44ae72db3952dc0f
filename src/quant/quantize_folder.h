// SPDX-License-Identifier: Apache-2.0
// A Hugging Face folder into a compressed-tensors folder, which vLLM, transformers and Puna read,
// in one of the schemes of folder_scheme.h. W4A16 is rounded to the nearest, each group clipped
// where that loses least; or by GPTQ; or by AWQ, which changes the norms too. The embedding and the
// output head stay as they are, and so do the norms else. A failure, a full disk or a stop leaves
// no folder.
//
//   RETURN_IF_ERROR(quantize_folder(checkpoint, "out", {.scheme = FolderScheme::kW4A16}));
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "formats/checkpoint.h"
#include "quant/awq_layer.h"
#include "quant/folder_scheme.h"
#include "quant/gptq.h"
#include "quant/quantize_model.h"

namespace puna::quant {

struct FolderOptions {
  FolderScheme scheme = FolderScheme::kW4A16;
  const ImportanceMatrix* importance = nullptr;  // W4A16 only
  // W4A16 by GPTQ, or by AWQ, asked layer by layer (model/input_products.h); none: rounded to the
  // nearest.
  std::function<Result<std::shared_ptr<const GptqFactor>>(formats::WeightId id)> factor_of = {};
  ProductsOf products_of = {};
  int32_t threads = 1;
  std::function<bool(uint64_t done_bytes, uint64_t total_bytes)> progress = {};
};

// Errors: kInvalidArgument when `folder` exists, kUnsupported when the checkpoint is a GGUF file
// (its tokenizer is in no form that a folder can have), else as quantize_model().
Result<QuantizeReport> quantize_folder(const formats::Checkpoint& checkpoint,
                                       const std::string& folder, const FolderOptions& options);

}  // namespace puna::quant
