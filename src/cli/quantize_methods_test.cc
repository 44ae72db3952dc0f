// SPDX-License-Identifier: Apache-2.0
// W4A16 by GPTQ and by AWQ against plain rounding, on text that the calibration didn't see: right
// answers to items of other seeds, read by a model that can do them.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "check/families/item_lines.h"
#include "check/twin_models.h"
#include "cli/commands.h"
#include "cli/engine_answerer.h"
#include "cli/flags.h"
#include "formats/checkpoint.h"
#include "model/chat_template.h"
#include "model/tokenizer.h"

namespace puna::cli {
namespace {

using check::Family;

constexpr Family kFamilies[] = {Family::kArithmetic, Family::kAlgebra, Family::kToolCall,
                                Family::kEdit};
constexpr uint64_t kCalibrationSeed = check::kTrainingSeedBit | 4;
constexpr uint64_t kHeldOutSeed = 20261128;

class QuantizeMethods : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/puna_methods_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    std::ofstream text(folder_ + "/text.jsonl");
    for (int32_t index = 0; index < 10; ++index) {
      for (const Family family : kFamilies) {
        text << check::item_line(check::make_item({family, kCalibrationSeed, index, 0})) << "\n";
      }
    }
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // Mean divergence from the unquantised model over the answers, nats.
  double divergence_by(const std::string& method) {
    QuantizeFlags flags;
    flags.input = model_;
    flags.output = folder_ + "/" + method;
    flags.type = "W4A16";
    flags.gptq = method == "gptq";
    flags.awq = method == "awq";
    if (method != "rounding") flags.calibration = folder_ + "/text.jsonl";
    flags.threads = 2;
    const auto made = quantize(flags);
    EXPECT_TRUE(made.ok()) << made.error().message();
    if (!made.ok()) return 1e9;
    const auto base = formats::Checkpoint::open(model_);
    const auto variant = formats::Checkpoint::open(flags.output);
    EXPECT_TRUE(base.ok() && variant.ok());
    const auto tokenizer = model::Tokenizer::load(base->tokenizer_source());
    const auto chat = model::ChatTemplate::choose("", *tokenizer);
    auto twins = check::TwinModels::create(*base, *variant,
                                           {.threads = 2,
                                            .activations = kernels::ActivationMode::kFloat,
                                            .base_kv = kernels::KvType::kF32,
                                            .variant_kv = kernels::KvType::kF32});
    EXPECT_TRUE(twins.ok()) << twins.error().message();
    std::vector<check::TokenDivergence> compared;
    for (int32_t index = 0; index < 12; ++index) {
      for (const Family family : kFamilies) {
        const check::Item item = check::make_item({family, kHeldOutSeed, index, 0});
        auto tokens = item_prompt(item, *chat, *tokenizer);
        const size_t prompt = tokens->size();
        for (const model::TokenId token : tokenizer->encode(item.oracle)) tokens->push_back(token);
        EXPECT_TRUE(twins->measure(*tokens, prompt - 1, compared).ok());
      }
    }
    return check::summarise(compared).kld.value;
  }

  const std::string model_ = std::string(PUNA_SOURCE_DIR) + "/tests/models/check-7m";
  std::string folder_;
};

TEST_F(QuantizeMethods, BothBeatRoundingOnTextThatTheyHaveNotSeen) {
  const double rounding = divergence_by("rounding");
  const double gptq = divergence_by("gptq");
  const double awq = divergence_by("awq");
  std::printf("mean divergence: rounding %.4f, AWQ %.4f, GPTQ %.4f\n", rounding, awq, gptq);
  EXPECT_GT(rounding, 0.001);
  EXPECT_LT(gptq, 0.9 * rounding);
  EXPECT_LT(awq, 0.95 * rounding);
}

}  // namespace
}  // namespace puna::cli
