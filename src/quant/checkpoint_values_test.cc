// SPDX-License-Identifier: Apache-2.0
// The same model as a Hugging Face folder and as a quantised GGUF decodes to the same numbers:
// names, shapes, block types and both RoPE layouts agree. Also one row of the real model, when it
// is there.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "quant/dequant.h"
#include "quant/test_files.h"

namespace puna::quant {
namespace {

using formats::Checkpoint;
using formats::RopeLayout;
using formats::TensorView;
using formats::WeightId;
using formats::WeightRole;

// Rows of attn_q or attn_k in half-split order, whatever order the file has.
std::vector<float> half_split(const Checkpoint& model, const TensorView& view) {
  const std::vector<float> values = values_of(view);
  if (model.spec().rope_layout == RopeLayout::kHalfSplit) return values;
  const auto columns = static_cast<size_t>(view.columns);
  const auto head_dim = static_cast<size_t>(model.spec().head_dim);
  std::vector<float> out(values.size());
  for (size_t row = 0; row < static_cast<size_t>(view.rows); ++row) {
    const size_t head = row / head_dim;
    const size_t element = row % head_dim;  // pairs (2i, 2i + 1) become (i, i + head_dim / 2)
    const size_t target = head * head_dim + element / 2 + (element % 2) * (head_dim / 2);
    std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(row * columns), columns,
                out.begin() + static_cast<std::ptrdiff_t>(target * columns));
  }
  return out;
}

std::vector<float> comparable(const Checkpoint& model, WeightId id) {
  const bool rotated = id.role == WeightRole::kAttnQ || id.role == WeightRole::kAttnK;
  return rotated ? half_split(model, model.tensor(id)) : values_of(model.tensor(id));
}

// Root mean square of the difference over that of `a`.
double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0;
  double size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    size += std::pow(static_cast<double>(a[i]), 2);
  }
  return std::sqrt(difference / size);
}

void expect_alike(const Checkpoint& base, const Checkpoint& quantised) {
  for (int role = 0; role <= static_cast<int>(WeightRole::kFfnDown); ++role) {
    const bool global = role <= static_cast<int>(WeightRole::kOutputHead);
    for (int32_t layer = global ? -1 : 0; layer < (global ? 0 : base.spec().num_layers); ++layer) {
      const WeightId id{static_cast<WeightRole>(role), layer};
      const auto expected = comparable(base, id);
      const auto actual = comparable(quantised, id);
      ASSERT_EQ(expected.size(), actual.size());
      // 4 bits leave about 8 % of noise in normal weights; a permuted row would leave 140 %.
      EXPECT_LT(relative_error(expected, actual), 0.12) << quantised.tensor(id).name;
    }
  }
}

TEST(CheckpointValues, GgufAndFolderAgree) {
  expect_alike(open(golden("tiny_llama_hf")), open(golden("tiny_llama_gguf/tiny.gguf")));
}

TEST(CheckpointValues, TiedShardsAndFolderAgree) {
  expect_alike(open(golden("tiny_llama_hf_tied")),
               open(golden("tiny_llama_gguf/tiny-tied-00001-of-00002.gguf")));
}

TEST(CheckpointValues, TheRealModelIsSane) {
  const char* path = std::getenv("PUNA_TEST_MODEL");
  if (path == nullptr) GTEST_SKIP() << "PUNA_TEST_MODEL (path of the SmolLM2 GGUF) is not set";
  auto model = Checkpoint::open(path);
  ASSERT_TRUE(model.ok()) << model.error().message();
  EXPECT_EQ(model->spec().num_layers, 30);
  EXPECT_EQ(model->spec().vocab_size, 49152);
  EXPECT_TRUE(model->spec().tied_head);
  for (int32_t layer = 0; layer < model->spec().num_layers; ++layer) {
    double sum = 0;
    for (const float value : values_of(model->tensor({WeightRole::kFfnDown, layer}))) {
      sum += static_cast<double>(value) * static_cast<double>(value);
    }
    const double rms = std::sqrt(sum / (576.0 * 1536.0));
    EXPECT_GT(rms, 0.01) << "layer " << layer;
    EXPECT_LT(rms, 1.0) << "layer " << layer;
  }
}

}  // namespace
}  // namespace puna::quant
