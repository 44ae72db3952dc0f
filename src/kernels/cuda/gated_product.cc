// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/gated_product.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/cuda/device_timer.h"
#include "kernels/cuda/gemm_few_rows.h"
#include "kernels/cuda/gemm_swiglu.h"
#include "kernels/cuda/row_kernels.h"

namespace puna::kernels::cuda {
namespace {

constexpr int32_t kManyRows = 257;  // below, reading weights takes the time
constexpr int32_t kComparedRows = 256;
// Raise it with a change to gemm_swiglu.cu that moves its speed: what was kept is measured again.
constexpr int kKernelVersion = 1;
const std::vector<uint64_t> kByOne = {1};
const std::vector<uint64_t> kByTwo = {2};

FewRowsShape few_rows_shape(int64_t inner, int64_t columns) {
  return {.outputs = 2 * inner, .columns = columns, .result = FewRowsResult::kSwiglu};
}

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
  const std::vector<int32_t> counts = product->counts_with_one(weights[0], stream);
  const std::string subject = fmt::format("gate, up and SwiGLU {} x {}, kernels {} and {}", inner,
                                          columns, kKernelVersion, kFewRowsVersion);
  std::vector<TunedRows> tuned = library.tunings().recall(subject);
  const auto kept = [&](int32_t rows) {
    return std::any_of(tuned.begin(), tuned.end(),
                       [&](const TunedRows& t) { return t.rows == rows; });
  };
  if (!std::all_of(counts.begin(), counts.end(), kept)) {
    tuned = product->time_both(counts, weights, stream);
    library.tunings().keep(subject, tuned);
  }
  for (const TunedRows& rows : tuned) {
    if (rows.choice == kByOne && std::binary_search(counts.begin(), counts.end(), rows.rows))
      product->fused_.push_back(rows.rows);
  }
  return product;
}

std::vector<int32_t> GatedProduct::counts_with_one(const Float16* weight, Stream stream) const {
  const bool few = few_rows_gemm_supports(few_rows_shape(inner_, columns_));
  const bool many = max_rows_ >= kManyRows && swiglu_gemm_supports(inner_, columns_) &&
                    same_bits(max_rows_, weight, stream);
  std::vector<int32_t> counts;
  for (int32_t rows = 1; rows <= max_rows_; ++rows) {
    rows = padded_rows(rows);
    const bool has_one = rows <= kMostFewRows
                             ? few && same_bits(std::min(rows, max_rows_), weight, stream)
                             : many && rows >= kManyRows;
    if (has_one) counts.push_back(rows);
  }
  return counts;
}

std::vector<TunedRows> GatedProduct::time_both(std::span<const int32_t> counts,
                                               std::span<const Float16* const> weights,
                                               Stream stream) const {
  const auto time = [&](int32_t rows, auto way) {
    return microseconds_of(stream, [&](size_t turn) {
      // As in a step, where a small kernel comes before.
      fill_value(reinterpret_cast<float*>(buffers_.between), 1, 0.0F, stream);
      (this->*way)(weights[turn % weights.size()], rows, stream);
    });
  };
  std::vector<TunedRows> tuned;
  for (const int32_t rows : counts) {
    const int32_t most = std::min(rows, max_rows_);
    const bool faster = time(most, &GatedProduct::by_one) < time(most, &GatedProduct::by_two);
    tuned.push_back({rows, faster ? kByOne : kByTwo});
  }
  return tuned;
}

bool GatedProduct::same_bits(int32_t rows, const Float16* weight, Stream stream) const {
  const int32_t compared = std::min(rows, kComparedRows);
  std::vector<Float16> results[2];
  for (std::vector<Float16>& result : results) {
    if (&result == &results[0]) {
      by_two(weight, rows, stream);
    } else {
      by_one(weight, rows, stream);
    }
    result.resize(static_cast<size_t>(compared * inner_));
    check_device(cudaMemcpyAsync(result.data(), buffers_.activated + (rows - compared) * inner_,
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
  if (rows <= kMostFewRows) {
    return few_rows_gemm({.shape = few_rows_shape(inner_, columns_),
                          .x = buffers_.x,
                          .weight = weight,
                          .out = buffers_.activated,
                          .rows = rows,
                          .piece_stride = 0},
                         stream);
  }
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
  const auto few = std::upper_bound(fused_.begin(), fused_.end(), kMostFewRows) - fused_.begin();
  const auto many = std::ssize(fused_) - few;
  if (few > 0)
    text +=
        fmt::format(", one kernel with SwiGLU for up to {}", fused_[static_cast<size_t>(few) - 1]);
  if (many > 0)
    text +=
        fmt::format(", one for {} row counts from {} on", many, fused_[static_cast<size_t>(few)]);
  return text;
}

}  // namespace puna::kernels::cuda
