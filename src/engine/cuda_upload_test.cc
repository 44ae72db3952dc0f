// SPDX-License-Identifier: Apache-2.0
#include "engine/cuda_upload.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <string>
#include <vector>

#include "kernels/cuda/test_device.h"
#include "quant/dequant.h"

namespace puna::engine {
namespace {

using formats::Checkpoint;
using formats::TensorView;
using formats::WeightId;
using kernels::cuda::DeviceArray;
using enum formats::WeightRole;

// Rows of the file in the order that the GPU wants them in, each rounded once.
std::vector<Float16> expected(const Checkpoint& checkpoint, WeightId id, bool rotated) {
  const TensorView& view = checkpoint.tensor(id);
  const auto columns = static_cast<size_t>(view.columns);
  const size_t row_bytes = view.data.size() / static_cast<size_t>(view.rows);
  const int64_t half = checkpoint.spec().head_dim / 2;
  std::vector<Float16> values;
  std::vector<float> row(columns);
  for (int64_t i = 0; i < view.rows; ++i) {
    int64_t from = i;
    if (rotated && checkpoint.spec().rope_layout == formats::RopeLayout::kHalfSplit) {
      const int64_t head = i / (2 * half);
      const int64_t pair = i / 2 % half;
      from = head * 2 * half + pair + (i % 2 == 0 ? 0 : half);
    }
    quant::dequantize(view.type,
                      view.data.subspan(static_cast<size_t>(from) * row_bytes, row_bytes), row);
    for (const float value : row) values.push_back(to_float16(value));
  }
  return values;
}

class CudaUploadTest : public testing::TestWithParam<const char*> {};

// With buffers of a row or two, each is used many times.
TEST_P(CudaUploadTest, EveryRowArrivesFromMoreBuffersThanThereAre) {
  const auto checkpoint = Checkpoint::open(std::string(PUNA_GOLDEN_DIR) + "/" + GetParam()).value();
  struct Matrix {
    WeightId id;
    bool rotated;
  };
  for (const int64_t buffer_elements : {int64_t{128}, CudaUpload::kBufferElements}) {
    auto upload = CudaUpload::create(checkpoint, nullptr, buffer_elements).value();
    const std::vector<Matrix> matrices = {
        {{kTokenEmbedding}, false}, {{kOutputHead}, false}, {{kAttnQ, 0}, true},
        {{kAttnK, 1}, true},        {{kAttnV, 1}, false},   {{kAttnOutput, 0}, false},
        {{kFfnGate, 1}, false},     {{kFfnUp, 0}, false},   {{kFfnDown, 1}, false}};
    std::deque<DeviceArray<Float16>> arrived;
    for (const Matrix& matrix : matrices) {
      const TensorView& view = checkpoint.tensor(matrix.id);
      arrived.emplace_back(static_cast<size_t>(view.rows * view.columns));
      if (matrix.rotated) {
        upload.rotated_matrix(matrix.id, arrived.back().data());
      } else {
        upload.matrix(matrix.id, arrived.back().data());
      }
    }
    const TensorView& norm = checkpoint.tensor({kOutputNorm});
    DeviceArray<float> vector(static_cast<size_t>(norm.columns));
    upload.vector({kOutputNorm}, vector.data());
    upload.finish();
    for (size_t i = 0; i < matrices.size(); ++i) {
      const auto wanted = expected(checkpoint, matrices[i].id, matrices[i].rotated);
      const auto got = arrived[i].values();
      EXPECT_TRUE(std::equal(wanted.begin(), wanted.end(), got.begin(), got.end(),
                             [](Float16 a, Float16 b) { return a.bits == b.bits; }))
          << checkpoint.tensor(matrices[i].id).name;
    }
    std::vector<float> wanted(vector.values().size());
    quant::dequantize(norm.type, norm.data, wanted);
    EXPECT_EQ(vector.values(), wanted);
  }
}

INSTANTIATE_TEST_SUITE_P(Tiny, CudaUploadTest,
                         testing::Values("tiny_llama_gguf/tiny.gguf",
                                         "tiny_llama_gguf/tiny-tied-00001-of-00002.gguf",
                                         "tiny_llama_hf", "tiny_llama_hf_tied"));

}  // namespace
}  // namespace puna::engine
