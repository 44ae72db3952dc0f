// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/gated_product.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>

#include "kernels/cuda/device_timer.h"
#include "kernels/cuda/gemm_swiglu.h"
#include "kernels/cuda/row_kernels.h"

namespace puna::kernels::cuda {
namespace {

constexpr int32_t kFewestRows = 257;  // below, reading weights takes the time
constexpr int32_t kComparedRows = 256;
// Raise it with a change to gemm_swiglu.cu that moves its speed: what was kept is measured again.
constexpr int kKernelVersion = 1;
const std::vector<uint64_t> kByOne = {1};
const std::vector<uint64_t> kByTwo = {2};

}  // namespace

Result<std::unique_ptr<GatedProduct>> GatedProduct::prepare(GemmLibrary& library, int64_t inner,
                                                            int64_t columns, int32_t max_rows,
                                                            const GatedBuffers& buffers,
                                                            std::span<const Float16* const> weights,
                                                            Stream stream) {
  ASSIGN_OR_RETURN(
      std::unique_ptr<Gemm> gate_up,
      library.prepare(
          {.outputs = 2 * inner, .columns = columns}, max_rows,
          {.weights = weights, .x = buffers.x, .out = buffers.between, .stream = stream}));
  std::unique_ptr<GatedProduct> product(
      new GatedProduct(std::move(gate_up), inner, columns, max_rows, buffers));
  if (max_rows < kFewestRows || !swiglu_gemm_supports(inner, columns) ||
      !product->same_bits(weights[0], stream))
    return product;
  const std::string subject =
      fmt::format("gate, up and SwiGLU {} x {}, kernel {}", inner, columns, kKernelVersion);
  std::vector<TunedRows> tuned = library.tunings().recall(subject);
  if (tuned.empty() || tuned.back().rows < padded_rows(max_rows)) {
    tuned = product->time_both(weights, stream);
    library.tunings().keep(subject, tuned);
  }
  for (const TunedRows& rows : tuned) {
    if (rows.choice == kByOne) product->fused_.push_back(rows.rows);
  }
  return product;
}

std::vector<TunedRows> GatedProduct::time_both(std::span<const Float16* const> weights,
                                               Stream stream) const {
  const auto time = [&](int32_t rows, auto way) {
    return microseconds_of(
        stream, [&](size_t turn) { (this->*way)(weights[turn % weights.size()], rows, stream); });
  };
  std::vector<TunedRows> tuned;
  for (int32_t rows = padded_rows(kFewestRows); rows <= padded_rows(max_rows_);
       rows = padded_rows(rows + 1)) {
    const int32_t most = std::min(rows, max_rows_);
    const bool faster = time(most, &GatedProduct::by_one) < time(most, &GatedProduct::by_two);
    tuned.push_back({rows, faster ? kByOne : kByTwo});
  }
  return tuned;
}

bool GatedProduct::same_bits(const Float16* weight, Stream stream) const {
  std::vector<Float16> results[2];
  for (std::vector<Float16>& result : results) {
    if (&result == &results[0]) {
      by_two(weight, max_rows_, stream);
    } else {
      by_one(weight, max_rows_, stream);
    }
    result.resize(static_cast<size_t>(kComparedRows * inner_));
    check_device(
        cudaMemcpyAsync(result.data(), buffers_.activated + (max_rows_ - kComparedRows) * inner_,
                        result.size() * sizeof(Float16), cudaMemcpyDeviceToHost, stream),
        "reading a product");
    check_device(cudaStreamSynchronize(stream), "a product");
  }
  return std::memcmp(results[0].data(), results[1].data(), results[0].size() * sizeof(Float16)) ==
         0;
}

void GatedProduct::by_two(const Float16* weight, int32_t rows, Stream stream) const {
  gate_up_->run(buffers_.x, weight, buffers_.between, rows, stream);
  swiglu(buffers_.between, buffers_.activated, rows, static_cast<int32_t>(inner_), stream);
}

void GatedProduct::by_one(const Float16* weight, int32_t rows, Stream stream) const {
  swiglu_gemm({.x = buffers_.x,
               .weight = weight,
               .out = buffers_.activated,
               .rows = rows,
               .room = padded_rows(max_rows_),
               .inner = inner_,
               .columns = columns_},
              stream);
}

bool GatedProduct::fused(int32_t rows) const {
  return std::binary_search(fused_.begin(), fused_.end(), padded_rows(rows));
}

void GatedProduct::run(const Float16* weight, int32_t rows, Stream stream) const {
  if (fused(rows)) {
    by_one(weight, rows, stream);
  } else {
    by_two(weight, rows, stream);
  }
}

std::string GatedProduct::summary() const {
  std::string text = gate_up_->summary();
  if (!fused_.empty()) {
    text += fmt::format(", one kernel with SwiGLU for {} of its row counts from {} on",
                        fused_.size(), fused_.front());
  }
  return text;
}

}  // namespace puna::kernels::cuda
