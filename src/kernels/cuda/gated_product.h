// SPDX-License-Identifier: Apache-2.0
// silu(x * gate^T) * (x * up^T), in f16: by the library's product and a kernel (gemm.h,
// row_kernels.h), or, for row counts where that is faster here and has the same bits, by one kernel
// (few rows: gemm_few_rows.h, many: gemm_swiglu.h). Rows have the same bits whatever their number.
// One engine thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/numeric.h"
#include "base/result.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/stream.h"

namespace puna::kernels::cuda {

// For max_rows, padded.
struct GatedBuffers {
  const Float16* x = nullptr;    // [rows, columns]
  Float16* between = nullptr;    // [rows, 2 * inner]: gates and ups, where they go through memory
  Float16* activated = nullptr;  // [rows, inner]
};

class GatedProduct {
 public:
  // `weights` are of [2 * inner, columns], gate then up, at least one; x is random, and what is in
  // the other buffers is lost. Errors: GemmLibrary::prepare()'s.
  static Result<std::unique_ptr<GatedProduct>> prepare(GemmLibrary& library, int64_t inner,
                                                       int64_t columns, int32_t max_rows,
                                                       const GatedBuffers& buffers,
                                                       std::span<const Float16* const> weights,
                                                       Stream stream);
  void run(const Float16* weight, int32_t rows, Stream stream) const;
  // Whether this number of rows goes by the one kernel.
  bool fused(int32_t rows) const;
  std::string summary() const;

 private:
  GatedProduct(std::unique_ptr<Gemm> gate_up, int64_t inner, int64_t columns, int32_t max_rows,
               const GatedBuffers& buffers)
      : gate_up_(std::move(gate_up)),
        inner_(inner),
        columns_(columns),
        max_rows_(max_rows),
        buffers_(buffers) {}
  void by_two(const Float16* weight, int32_t rows, Stream stream) const;
  void by_one(const Float16* weight, int32_t rows, Stream stream) const;
  // Padded row counts, rising, for which there is one kernel with the right bits.
  std::vector<int32_t> counts_with_one(const Float16* weight, Stream stream) const;
  // Of the last of `rows`.
  bool same_bits(int32_t rows, const Float16* weight, Stream stream) const;
  std::vector<TunedRows> time_both(std::span<const int32_t> counts,
                                   std::span<const Float16* const> weights, Stream stream) const;

  std::unique_ptr<Gemm> gate_up_;
  int64_t inner_;
  int64_t columns_;
  int32_t max_rows_;
  GatedBuffers buffers_;
  std::vector<int32_t> fused_;  // padded row counts, rising
};

}  // namespace puna::kernels::cuda
