// SPDX-License-Identifier: Apache-2.0
// Whole models through the quantiser: the types of the mixes, the same numbers in GGUF's order, the
// same bytes for any number of threads, and nothing left behind by a failure.
#include "quant/quantize_model.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "quant/dequant.h"
#include "quant/test_files.h"

namespace puna::quant {
namespace {

using formats::Checkpoint;
using formats::GgufFile;
using formats::GgufWriter;
using formats::ModelSpec;
using formats::TensorType;
using formats::TensorView;
using formats::WeightId;
using formats::WeightRole;

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class QuantizeModel : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/puna_quantize_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // The keys that a Checkpoint needs, copied or from the spec.
  static Result<> set_keys(const Checkpoint& model, GgufWriter& writer) {
    const ModelSpec& spec = model.spec();
    const auto count = [](int32_t value) { return static_cast<uint32_t>(value); };
    RETURN_IF_ERROR(writer.set("general.architecture", "llama"));
    RETURN_IF_ERROR(writer.set("llama.block_count", count(spec.num_layers)));
    RETURN_IF_ERROR(writer.set("llama.context_length", count(spec.max_position)));
    RETURN_IF_ERROR(writer.set("llama.embedding_length", count(spec.hidden_size)));
    RETURN_IF_ERROR(writer.set("llama.feed_forward_length", count(spec.intermediate_size)));
    RETURN_IF_ERROR(writer.set("llama.attention.head_count", count(spec.num_heads)));
    RETURN_IF_ERROR(writer.set("llama.attention.head_count_kv", count(spec.num_kv_heads)));
    RETURN_IF_ERROR(writer.set("llama.attention.key_length", count(spec.head_dim)));
    RETURN_IF_ERROR(writer.set("llama.attention.value_length", count(spec.head_dim)));
    RETURN_IF_ERROR(writer.set("llama.rope.freq_base", static_cast<float>(spec.rope_theta)));
    return writer.set("llama.attention.layer_norm_rms_epsilon", spec.rms_norm_eps);
  }

  Result<QuantizeReport> quantize(const Checkpoint& model, const std::string& name,
                                  const QuantizeOptions& options) {
    GgufWriter writer(folder_ + "/" + name, {});
    RETURN_IF_ERROR(set_keys(model, writer));
    return quantize_model(model, options, writer);
  }

  bool folder_is_empty() const { return std::filesystem::is_empty(folder_); }

  std::string folder_;
};

// The rows of GGUF's q or k: pairs (2i, 2i + 1) where the folder has i and i + head_dim / 2.
std::vector<float> interleaved(const std::vector<float>& values, const ModelSpec& spec) {
  const auto columns = static_cast<size_t>(spec.hidden_size);
  const auto dim = static_cast<size_t>(spec.head_dim);
  std::vector<float> out(values.size());
  for (size_t row = 0; row < values.size() / columns; ++row) {
    const size_t i = row % dim;
    const size_t target = row - i + (i < dim / 2 ? 2 * i : 2 * (i - dim / 2) + 1);
    std::memcpy(&out[target * columns], &values[row * columns], columns * sizeof(float));
  }
  return out;
}

TEST_F(QuantizeModel, KeepsEveryNumberInF32) {
  for (const char* name : {"tiny_llama_hf", "tiny_llama_hf_tied", "tiny_llama_gguf/tiny.gguf"}) {
    const Checkpoint from = open(golden(name));
    const auto report = quantize(from, "out.gguf", {.mix = Mix::kF32});
    ASSERT_TRUE(report.ok()) << report.error().message();
    const Checkpoint to = open(folder_ + "/out.gguf");
    const ModelSpec& spec = from.spec();
    EXPECT_EQ(to.spec().rope_divisors, spec.rope_divisors);
    EXPECT_EQ(to.spec().tied_head, spec.tied_head);
    const bool half_split = spec.rope_layout == formats::RopeLayout::kHalfSplit;
    for (int32_t layer = 0; layer < spec.num_layers; ++layer) {
      for (const WeightRole role : {WeightRole::kAttnQ, WeightRole::kAttnK, WeightRole::kAttnV,
                                    WeightRole::kFfnDown, WeightRole::kAttnNorm}) {
        std::vector<float> expected = values_of(from.tensor({role, layer}));
        const bool turned = role == WeightRole::kAttnQ || role == WeightRole::kAttnK;
        if (turned && half_split) expected = interleaved(expected, spec);
        EXPECT_EQ(values_of(to.tensor({role, layer})), expected) << name;
      }
    }
    EXPECT_EQ(values_of(to.tensor({WeightRole::kTokenEmbedding})),
              values_of(from.tensor({WeightRole::kTokenEmbedding})));
  }
}

TEST_F(QuantizeModel, TheSameBytesForAnyNumberOfThreads) {
  const Checkpoint model = open(golden("tiny_llama_hf"));
  ASSERT_TRUE(quantize(model, "one.gguf", {.mix = Mix::kQ4_K_M, .threads = 1}).ok());
  ASSERT_TRUE(quantize(model, "many.gguf", {.mix = Mix::kQ4_K_M, .threads = 7}).ok());
  EXPECT_EQ(bytes_of(folder_ + "/one.gguf"), bytes_of(folder_ + "/many.gguf"));
}

TEST_F(QuantizeModel, ReportsWhatItLost) {
  const Checkpoint model = open(golden("tiny_llama_hf"));
  const auto coarse = quantize(model, "a.gguf", {.mix = Mix::kQ4_0});
  const auto fine = quantize(model, "b.gguf", {.mix = Mix::kQ8_0});
  ASSERT_TRUE(coarse.ok() && fine.ok());
  ASSERT_EQ(coarse->tensors.size(), fine->tensors.size());
  for (size_t i = 0; i < coarse->tensors.size(); ++i) {
    if (coarse->tensors[i].rows == 1) continue;
    EXPECT_LE(fine->tensors[i].relative_error, 1e-4);
    EXPECT_GT(fine->tensors[i].relative_error, 0.0);
    EXPECT_LE(coarse->tensors[i].relative_error, 0.02);
  }
  EXPECT_LT(coarse->bytes, fine->bytes);
}

// A damaged weight: the error names it, and no file is left.
TEST_F(QuantizeModel, RefusesWeightsThatAreNotFinite) {
  const std::string damaged = folder_ + "/damaged.gguf";
  std::string bytes = bytes_of(golden("tiny_llama_gguf/tiny.gguf"));
  {
    const auto file = GgufFile::open(golden("tiny_llama_gguf/tiny.gguf"));
    ASSERT_TRUE(file.ok());
    const formats::GgufTensor* norm = file->find_tensor("output_norm.weight");
    ASSERT_EQ(norm->type, TensorType::kF32);
    const float nan = std::numeric_limits<float>::quiet_NaN();
    std::memcpy(&bytes[static_cast<size_t>(norm->data.data() - file->shards()[0].bytes().data())],
                &nan, sizeof(nan));
  }
  std::ofstream(damaged, std::ios::binary) << bytes;
  const Checkpoint model = open(damaged);
  const auto report = quantize(model, "out.gguf", {.mix = Mix::kQ8_0});
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.error().code(), ErrorCode::kCorrupt);
  EXPECT_NE(report.error().message().find("\"output_norm.weight\""), std::string::npos)
      << report.error().message();
  std::filesystem::remove(damaged);
  EXPECT_TRUE(folder_is_empty());
}

TEST_F(QuantizeModel, AFullDiskLeavesNothing) {
  const Checkpoint model = open(golden("tiny_llama_hf"));
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);  // write() says EFBIG instead
  const rlimit small = {16384, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto report = quantize(model, "out.gguf", {.mix = Mix::kF32});
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, old_handler);
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.error().code(), ErrorCode::kIo) << report.error().message();
  EXPECT_TRUE(folder_is_empty());
}

TEST_F(QuantizeModel, AStopLeavesNothing) {
  const Checkpoint model = open(golden("tiny_llama_hf"));
  int calls = 0;
  QuantizeOptions options;
  options.progress = [&](uint64_t done, uint64_t total) {
    EXPECT_LE(done, total);
    return ++calls < 3;
  };
  const auto report = quantize(model, "out.gguf", options);
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.error().code(), ErrorCode::kUnavailable);
  EXPECT_EQ(calls, 3);
  EXPECT_TRUE(folder_is_empty());
}

TEST_F(QuantizeModel, ImportanceOfAnotherModelIsRefused) {
  const Checkpoint model = open(golden("tiny_llama_hf"));
  ImportanceMatrix other;
  other.entries["blk.0.attn_q.weight"].mean_squares = {1.0F, 2.0F};
  auto report = quantize(model, "out.gguf", {.importance = &other});
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.error().code(), ErrorCode::kInvalidArgument);
  other.entries.clear();
  other.entries["blk.99.attn_q.weight"].mean_squares = {1.0F};
  report = quantize(model, "out.gguf", {.importance = &other});
  ASSERT_FALSE(report.ok());
  EXPECT_TRUE(folder_is_empty());
}

TEST_F(QuantizeModel, ImportanceReachesItsWeight) {
  const Checkpoint model = open(golden("tiny_llama_hf"));
  const auto columns = static_cast<size_t>(model.spec().hidden_size);
  ImportanceMatrix matrix;
  std::vector<float>& squares = matrix.entries["blk.0.attn_v.weight"].mean_squares;
  squares.assign(columns, 1e-3F);
  for (size_t i = 0; i < columns; i += 4) squares[i] = 1.0F;
  const auto with = quantize(model, "with.gguf", {.mix = Mix::kQ4_0, .importance = &matrix});
  const auto without = quantize(model, "without.gguf", {.mix = Mix::kQ4_0});
  ASSERT_TRUE(with.ok() && without.ok());
  const Checkpoint a = open(folder_ + "/with.gguf");
  const Checkpoint b = open(folder_ + "/without.gguf");
  const auto differs = [&](WeightRole role) {
    return values_of(a.tensor({role, 0})) != values_of(b.tensor({role, 0}));
  };
  EXPECT_TRUE(differs(WeightRole::kAttnV));
  EXPECT_FALSE(differs(WeightRole::kAttnOutput));
}

// --- mixes ---

ModelSpec shape(int32_t layers, int32_t hidden, int32_t heads, int32_t kv_heads, bool tied) {
  ModelSpec spec;
  spec.num_layers = layers;
  spec.hidden_size = hidden;
  spec.intermediate_size = hidden * 4;
  spec.num_heads = heads;
  spec.num_kv_heads = kv_heads;
  spec.head_dim = hidden / heads;
  spec.tied_head = tied;
  return spec;
}

// How many layers have which type for a role.
std::map<TensorType, int> types_of(Mix mix, WeightRole role, const ModelSpec& spec,
                                   bool importance = false) {
  const bool down = role == WeightRole::kFfnDown;
  const int64_t columns = down ? spec.intermediate_size : spec.hidden_size;
  std::map<TensorType, int> types;
  for (int32_t layer = 0; layer < spec.num_layers; ++layer) {
    ++types[mix_type(mix, {role, layer}, spec, columns, importance)];
  }
  return types;
}

using Types = std::map<TensorType, int>;

// What llama-quantize gives Llama 3 8B.
TEST(Mixes, OfAnEightBillionModel) {
  const ModelSpec spec = shape(32, 4096, 32, 8, false);
  const auto one = [&](Mix mix, WeightRole role) {
    return mix_type(mix, {role}, spec, 4096, false);
  };
  EXPECT_EQ(one(Mix::kQ4_K_M, WeightRole::kOutputHead), TensorType::kQ6_K);
  EXPECT_EQ(one(Mix::kQ4_0, WeightRole::kOutputHead), TensorType::kQ6_K);
  EXPECT_EQ(one(Mix::kQ8_0, WeightRole::kOutputHead), TensorType::kQ8_0);
  EXPECT_EQ(one(Mix::kF16, WeightRole::kOutputHead), TensorType::kF16);
  EXPECT_EQ(one(Mix::kQ4_K_M, WeightRole::kTokenEmbedding), TensorType::kQ4_K);
  EXPECT_EQ(one(Mix::kQ2_K, WeightRole::kOutputNorm), TensorType::kF32);
  const Types half = {{TensorType::kQ4_K, 16}, {TensorType::kQ6_K, 16}};
  EXPECT_EQ(types_of(Mix::kQ4_K_M, WeightRole::kAttnV, spec), half);
  EXPECT_EQ(types_of(Mix::kQ4_K_M, WeightRole::kFfnDown, spec), half);
  EXPECT_EQ(types_of(Mix::kQ4_K_M, WeightRole::kAttnQ, spec), (Types{{TensorType::kQ4_K, 32}}));
  EXPECT_EQ(types_of(Mix::kQ4_K_S, WeightRole::kFfnDown, spec),
            (Types{{TensorType::kQ4_K, 28}, {TensorType::kQ5_K, 4}}));
  EXPECT_EQ(types_of(Mix::kQ3_K_M, WeightRole::kFfnDown, spec),
            (Types{{TensorType::kQ4_K, 30}, {TensorType::kQ5_K, 2}}));
  EXPECT_EQ(types_of(Mix::kQ3_K_M, WeightRole::kAttnOutput, spec),
            (Types{{TensorType::kQ4_K, 32}}));
  EXPECT_EQ(types_of(Mix::kQ2_K, WeightRole::kAttnV, spec), (Types{{TensorType::kQ4_K, 32}}));
  EXPECT_EQ(types_of(Mix::kQ2_K, WeightRole::kFfnUp, spec), (Types{{TensorType::kQ2_K, 32}}));
  EXPECT_EQ(types_of(Mix::kQ4_0, WeightRole::kFfnDown, spec), (Types{{TensorType::kQ4_0, 32}}));
  EXPECT_EQ(types_of(Mix::kQ4_0, WeightRole::kFfnDown, spec, true),
            (Types{{TensorType::kQ4_0, 28}, {TensorType::kQ4_1, 4}}));
}

// Rows of 576 are no whole blocks of 256, those of 1536 are.
TEST(Mixes, FallBackByTensor) {
  ModelSpec spec = shape(30, 576, 9, 3, true);
  spec.intermediate_size = 1536;
  const auto q = [&](Mix mix) { return types_of(mix, WeightRole::kAttnQ, spec); };
  EXPECT_EQ(q(Mix::kQ2_K), (Types{{TensorType::kQ4_0, 30}}));
  EXPECT_EQ(q(Mix::kQ3_K_M), (Types{{TensorType::kQ4_0, 30}}));
  EXPECT_EQ(q(Mix::kQ4_K_M), (Types{{TensorType::kQ5_0, 30}}));
  EXPECT_EQ(q(Mix::kQ5_K_M), (Types{{TensorType::kQ5_1, 30}}));
  EXPECT_EQ(q(Mix::kQ6_K), (Types{{TensorType::kQ8_0, 30}}));
  EXPECT_EQ(types_of(Mix::kQ2_K, WeightRole::kFfnDown, spec), (Types{{TensorType::kQ3_K, 30}}));
  EXPECT_EQ(mix_type(Mix::kQ4_K_M, {WeightRole::kTokenEmbedding}, spec, 576, false),
            TensorType::kQ8_0);
  EXPECT_EQ(mix_type(Mix::kQ4_K_M, {WeightRole::kAttnQ, 0}, spec, 40, false), TensorType::kF16);
}

TEST(Mixes, AreFoundByName) {
  ASSERT_TRUE(find_mix("q4_k_m").ok());
  EXPECT_EQ(*find_mix("q4_k_m"), Mix::kQ4_K_M);
  EXPECT_EQ(mix_file_type(Mix::kQ4_K_M), 15U);
  const auto unknown = find_mix("Q4_K");
  ASSERT_FALSE(unknown.ok());
  EXPECT_NE(unknown.error().message().find("Q4_K_S"), std::string::npos);
}

}  // namespace
}  // namespace puna::quant
