// SPDX-License-Identifier: Apache-2.0
// `puna quantize` from the command line to the file.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "cli/commands.h"
#include "cli/flags.h"
#include "formats/checkpoint.h"
#include "model/tokenizer.h"
#include "quant/importance.h"

namespace puna::cli {
namespace {

using ::testing::HasSubstr;

Result<Command> parse_quantize(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), {"puna", "quantize"});
  return parse_command(static_cast<int>(arguments.size()), arguments.data());
}

class QuantizeCommand : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/puna_quantize_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    flags_.input = std::string(PUNA_GOLDEN_DIR) + "/tiny_llama_hf";
    flags_.output = folder_ + "/out.gguf";
    flags_.type = "q4_k_m";
    flags_.threads = 2;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string error() {
    auto done = quantize(flags_);
    EXPECT_FALSE(done.ok());
    EXPECT_TRUE(std::filesystem::is_empty(folder_));
    return done.ok() ? "" : done.error().message();
  }

  std::string folder_;
  QuantizeFlags flags_;
};

TEST_F(QuantizeCommand, ReadsItsFlags) {
  auto command =
      parse_quantize({"in", "out.gguf", "--type", "Q4_0", "--imatrix", "m.dat", "--json"});
  ASSERT_TRUE(command.ok()) << command.error().message();
  const auto& flags = std::get<QuantizeFlags>(*command);
  EXPECT_EQ(flags.input, "in");
  EXPECT_EQ(flags.output, "out.gguf");
  EXPECT_EQ(flags.type, "Q4_0");
  EXPECT_EQ(flags.imatrix, "m.dat");
  EXPECT_TRUE(flags.json);
  EXPECT_FALSE(parse_quantize({"in", "out.gguf"}).ok());
  EXPECT_FALSE(parse_quantize({"in", "--type", "Q4_0"}).ok());
  EXPECT_FALSE(
      parse_quantize({"in", "out", "--type", "Q4_0", "--imatrix", "a", "--calibration", "b"}).ok());
  EXPECT_FALSE(parse_quantize({"in", "out", "--type", "Q4_0", "--imatrix-out", "a"}).ok());
  EXPECT_FALSE(parse_quantize({"in", "out", "--type", "W4A16", "--awq"}).ok());
  EXPECT_FALSE(
      parse_quantize({"in", "out", "--type", "W4A16", "--calibration", "t", "--awq", "--gptq"})
          .ok());
  EXPECT_TRUE(parse_quantize({"in", "out", "--type", "W4A16", "--calibration", "t", "--awq"}).ok());
}

TEST_F(QuantizeCommand, MakesAModelThatLoads) {
  auto done = quantize(flags_);
  ASSERT_TRUE(done.ok()) << done.error().message();
  EXPECT_EQ(*done, 0);
  auto made = formats::Checkpoint::open(flags_.output);
  ASSERT_TRUE(made.ok()) << made.error().message();
  EXPECT_TRUE(model::Tokenizer::load(made->tokenizer_source()).ok());
  // A second time, from what was made: any quantised input does.
  flags_.input = flags_.output;
  flags_.output = folder_ + "/again.gguf";
  flags_.type = "Q8_0";
  done = quantize(flags_);
  ASSERT_TRUE(done.ok()) << done.error().message();
  EXPECT_TRUE(formats::Checkpoint::open(flags_.output).ok());
}

TEST_F(QuantizeCommand, CalibratesAndKeepsTheMatrix) {
  flags_.calibration = "default";
  flags_.imatrix_out = folder_ + "/matrix.gguf";
  const auto done = quantize(flags_);
  ASSERT_TRUE(done.ok()) << done.error().message();
  const auto matrix = quant::read_importance(flags_.imatrix_out);
  ASSERT_TRUE(matrix.ok()) << matrix.error().message();
  EXPECT_GE(matrix->chunks, 3U);
  EXPECT_NE(matrix->find("blk.0.attn_q.weight"), nullptr);
}

TEST_F(QuantizeCommand, MakesAFolderByGptqOrAwq) {
  flags_.type = "W4A16";
  flags_.calibration = "default";
  for (const char* method : {"gptq", "awq"}) {
    SCOPED_TRACE(method);
    flags_.gptq = std::string_view(method) == "gptq";
    flags_.awq = !flags_.gptq;
    flags_.output = folder_ + "/" + method;
    const auto done = quantize(flags_);
    ASSERT_TRUE(done.ok()) << done.error().message();
    const auto made = formats::Checkpoint::open(flags_.output);
    ASSERT_TRUE(made.ok()) << made.error().message();
    EXPECT_EQ(made->tensor({formats::WeightRole::kAttnQ, 0}).type, formats::TensorType::kQ8_0);
  }
}

TEST_F(QuantizeCommand, SaysWhatIsWrong) {
  flags_.gptq = true;
  flags_.calibration = "default";
  EXPECT_THAT(error(), HasSubstr("--gptq goes with --type W4A16"));
  flags_.gptq = false;
  flags_.awq = true;
  EXPECT_THAT(error(), HasSubstr("--awq goes with --type W4A16"));
  flags_.awq = false;
  flags_.calibration.clear();
  flags_.type = "Q9_K";
  EXPECT_THAT(error(), HasSubstr("Q4_K_M"));
  flags_.type = "Q8_0";
  flags_.imatrix = folder_ + "/missing.dat";
  EXPECT_THAT(error(), HasSubstr("missing.dat"));
  flags_.imatrix.clear();
  flags_.input = folder_ + "/missing.gguf";
  EXPECT_THAT(error(), HasSubstr("missing.gguf"));
  flags_.input = std::string(PUNA_GOLDEN_DIR) + "/tiny_llama_gguf/tiny.gguf";
  flags_.output = flags_.input;
  EXPECT_THAT(error(), HasSubstr("replace the input"));
  flags_.output = folder_ + "/no/such/folder/out.gguf";
  EXPECT_THAT(error(), HasSubstr("no/such/folder"));
}

}  // namespace
}  // namespace puna::cli
