// SPDX-License-Identifier: Apache-2.0
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns inside its own intrinsics.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "kernels/cpu/panel_avx512.inc"
// The vocabulary comes first: the body is written over it.
#include "kernels/cpu/panel_body.inc"

namespace puna::kernels {

const PanelKernels& avx512_panel_kernels() {
  static constexpr PanelKernels kKernels = {.quantize = quantize,
                                            .correct = correct,
                                            .product = product,
                                            .unpack = unpack,
                                            .unpack_from_rows = 2 * Panel::kRows + 1};
  return kKernels;
}

}  // namespace puna::kernels
