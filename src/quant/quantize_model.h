// SPDX-License-Identifier: Apache-2.0
// A whole model from any format into GGUF, one slab of rows at a time: memory stays small whatever
// the model's size. The output is the same for every number of threads. A failure, a full disk or a
// stop leaves no file.
//
//   GgufWriter writer("out.gguf", {});
//   RETURN_IF_ERROR(writer.set(...));  // general.*, llama.* and tokenizer.*
//   (model/gguf_metadata.h) ASSIGN_OR_RETURN(QuantizeReport report, quantize_model(checkpoint,
//   {.mix = mix}, writer));
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "formats/checkpoint.h"
#include "formats/gguf_writer.h"
#include "quant/importance.h"
#include "quant/mix.h"

namespace puna::quant {

struct QuantizeOptions {
  Mix mix = Mix::kQ4_K_M;
  const ImportanceMatrix* importance = nullptr;  // none: every column alike
  int32_t threads = 1;
  // Told after every slab; false stops the work with kUnavailable.
  std::function<bool(uint64_t done_bytes, uint64_t total_bytes)> progress = {};
};

struct QuantizedTensor {
  std::string name;  // in GGUF
  formats::TensorType from = formats::TensorType::kF32;
  formats::TensorType to = formats::TensorType::kF32;
  std::string_view stored_as = {};  // "Q4_K", or "int4", "int8", "fp8" in a folder
  int64_t rows = 0;
  int64_t columns = 0;
  uint64_t bytes = 0;
  double relative_error = 0.0;  // sum of squared errors / sum of squares, of every eighth row
  bool with_importance = false;
  bool fell_back = false;  // rows are not whole blocks of the type that the mix wanted
};

struct QuantizeReport {
  std::vector<QuantizedTensor> tensors;
  uint64_t bytes = 0;
  uint64_t elements = 0;
};

// Writes the tensors and finishes `writer`, whose metadata the caller has set; general.file_type
// and general.quantization_version are set here. Rows of q and k come out in GGUF's order. Errors:
// kCorrupt when a weight is not finite or beyond what float16 scales can hold, kInvalidArgument for
// an importance matrix of another model, kIo from the disk.
Result<QuantizeReport> quantize_model(const formats::Checkpoint& checkpoint,
                                      const QuantizeOptions& options, formats::GgufWriter& writer);

}  // namespace puna::quant
