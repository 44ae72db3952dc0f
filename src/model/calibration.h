// SPDX-License-Identifier: Apache-2.0
// An importance matrix from text: the model reads it through its own forward pass, in f32, and the
// squares of what enters each weight matrix are added up by column. The output head is left out, as
// llama-imatrix does.
//
//   ASSIGN_OR_RETURN(CalibrationText text, read_calibration_text(path, tokenizer, nullptr));
//   ASSIGN_OR_RETURN(quant::ImportanceMatrix matrix, collect_importance(checkpoint, text,
//   options));
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "formats/checkpoint.h"
#include "model/chat_template.h"
#include "model/tokenizer.h"
#include "quant/importance.h"

namespace puna::model {

struct CalibrationText {
  std::string name;
  std::vector<TokenId> tokens;  // conversations one after another
};

// Text that ships with the program: instructions, code, mathematics, extraction, tools. Written for
// this, so that no item of `puna check` is in it.
CalibrationText default_calibration_text(const Tokenizer& tokenizer, const ChatTemplate* chat);

// A file: each line a JSON object {"messages": [{"role": ..., "content": ...}, ...]} or
// {"text": "..."}, or else plain text. Conversations go through `chat`; without one their contents
// are joined. Errors: kInvalidArgument for less than one chunk of tokens.
Result<CalibrationText> read_calibration_text(const std::string& path, const Tokenizer& tokenizer,
                                              const ChatTemplate* chat);

struct CalibrationOptions {
  int32_t chunk_tokens = 512;  // each chunk begins anew at position 0
  int32_t max_chunks = 0;      // 0: all
  int32_t threads = 1;
  // Told after every chunk; false stops with kUnavailable.
  std::function<bool(int32_t done, int32_t total)> progress = {};
};

// Errors: kInvalidArgument when the text is shorter than a chunk, kCorrupt when an activation is
// not finite (a broken model).
Result<quant::ImportanceMatrix> collect_importance(const formats::Checkpoint& checkpoint,
                                                   const CalibrationText& text,
                                                   const CalibrationOptions& options);

}  // namespace puna::model
