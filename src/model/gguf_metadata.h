// SPDX-License-Identifier: Apache-2.0
// What a GGUF file says about its model besides the weights: shape, tokenizer, chat template.
// Copied from a GGUF model; made of a Hugging Face folder's settings and tokenizer.json under the
// keys that llama.cpp reads. Source: ggml docs/gguf.md.
#pragma once

#include "base/result.h"
#include "formats/checkpoint.h"
#include "formats/gguf_writer.h"

namespace puna::model {

// Sets every key but general.file_type and general.quantization_version, which belong to whoever
// writes the weights. Errors: kUnsupported for a folder without tokenizer.json, kCorrupt for a
// tokenizer with more tokens than the model.
Result<> set_gguf_metadata(const formats::Checkpoint& checkpoint, formats::GgufWriter& writer);

}  // namespace puna::model
