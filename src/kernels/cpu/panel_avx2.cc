// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/panel_avx2.inc"
// The vocabulary comes first: the body is written over it.
#include "kernels/cpu/panel_body.inc"

namespace puna::kernels {

const PanelKernels& avx2_panel_kernels() {
  static constexpr PanelKernels kKernels = {.quantize = quantize,
                                            .correct = correct,
                                            .product = product,
                                            .unpack = unpack,
                                            .unpack_from_rows = 2 * Panel::kRows + 1};
  return kKernels;
}

}  // namespace puna::kernels
