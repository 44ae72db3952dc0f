// SPDX-License-Identifier: Apache-2.0
// Exact scalar decoders: the definition of what each block type means, and the oracle of every
// kernel. They round as the `gguf` Python package does (float32, one rounding per product or sum),
// bit for bit.
//
//   std::vector<float> row(columns);
//   dequantize(view.type, view.data.first(row_bytes), row);
#pragma once

#include <cstddef>
#include <span>

#include "formats/tensor_type.h"

namespace puna::quant {

// `blocks` holds exactly the blocks of out.size() elements, whole blocks (CHECKed); it may be
// unaligned.
void dequantize(formats::TensorType type, std::span<const std::byte> blocks, std::span<float> out);

}  // namespace puna::quant
