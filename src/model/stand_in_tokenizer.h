// SPDX-License-Identifier: Apache-2.0
// A tokenizer for weights that were never trained: Llama 3's size and special tokens, and a
// vocabulary of its own making. Every byte is a token; the others are short strings of letters, so
// that texts shrink about as much as with a real one.
#pragma once

#include "base/result.h"
#include "model/tokenizer.h"

namespace puna::model {

// 128,256 tokens, the last 256 of them Llama 3's special ones.
Result<Tokenizer> stand_in_tokenizer();

}  // namespace puna::model
