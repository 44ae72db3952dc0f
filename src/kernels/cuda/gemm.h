// SPDX-License-Identifier: Apache-2.0
// Matrix products by cuBLASLt, or for few rows by an own kernel (gemm_few_rows.h). Rows have the
// same bits whatever their number.
//
// Split-K by the library is banned: it would sum a row's products in an order that depends on the
// number of rows. A long K is cut into a fixed number of pieces instead, a constant of the weight's
// shape; each piece gives its own f32 result, and whoever reads them adds them in order. Of the
// algorithms that there are, only those count that give the bits of a reference one, as prepare()
// measures; of these the fastest on this GPU after a small kernel, as in a step, is taken, for each
// number of rows. What was taken is kept for the next start, which compares the bits again but has
// nothing to time.
//
// The library is opened at run time, so that the program starts without it. One engine thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/numeric.h"
#include "base/result.h"
#include "kernels/cuda/stream.h"
#include "kernels/cuda/tuning_store.h"

namespace puna::kernels::cuda {

// out[row] = x[row] * weight^T
struct GemmShape {
  int64_t outputs = 0;       // rows of the weight
  int64_t columns = 0;       // of the weight, and of x
  int32_t pieces = 1;        // that K is cut into; more than 1 needs f32_out
  bool f32_out = false;      // else f16
  int64_t piece_stride = 0;  // elements between the pieces' results
};
// Pieces of a weight whose results are f32.
int32_t gemm_pieces(int64_t outputs, int64_t columns);

struct GemmTuning {
  std::span<const Float16* const> weights;  // of this shape, at least one; timed in turn
  const Float16* x = nullptr;               // [max_rows, columns], random
  void* out = nullptr;
  Stream stream = nullptr;
};

class Gemm;

class GemmLibrary {
 public:
  // Choices are kept in `tuning_folder` (empty: nowhere) for that machine, which is the GPU and its
  // driver. kUnavailable, with where it was looked for, when libcublasLt can't be opened.
  static Result<std::shared_ptr<GemmLibrary>> open(const std::string& tuning_folder = "",
                                                   const std::string& machine = "");
  virtual ~GemmLibrary() = default;
  virtual TuningStore& tunings() = 0;
  // Plans for every number of rows up to max_rows. kUnsupported when no algorithm gives the same
  // bits for all of them.
  virtual Result<std::unique_ptr<Gemm>> prepare(const GemmShape& shape, int32_t max_rows,
                                                const GemmTuning& tuning) = 0;
};

class Gemm {
 public:
  virtual ~Gemm() = default;
  // x and out have room for padded_rows(rows) rows; what is beyond `rows` is not defined.
  virtual void run(const Float16* x, const Float16* weight, void* out, int32_t rows,
                   Stream stream) const = 0;
  virtual bool recalled() const = 0;        // what an earlier start chose
  virtual std::string summary() const = 0;  // times, for logs
};

// Row counts that have plans: products run with the next one.
int32_t padded_rows(int32_t rows);

}  // namespace puna::kernels::cuda
