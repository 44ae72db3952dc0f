// SPDX-License-Identifier: Apache-2.0
// What the flags of pace do to a stream while a long prompt comes in, through the engine, in
// virtual time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "cli/flags.h"
#include "cli/loaded_model.h"
#include "engine/null_backend.h"
#include "engine/solo_run.h"
#include "plan/memory_model.h"

namespace puna::cli {
namespace {

Result<Command> parse_serve(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), {"puna", "serve"});
  return parse_command(static_cast<int>(arguments.size()), arguments.data());
}

ServeFlags parsed_flags(std::vector<const char*> arguments) {
  auto command = parse_serve(std::move(arguments));
  EXPECT_TRUE(command.ok()) << command.error().message();
  return std::get<ServeFlags>(std::move(command).value());
}

// A configuration file for as long as it lives.
struct ConfigText {
  explicit ConfigText(const std::string& text) { std::ofstream(path) << text; }
  ~ConfigText() { std::filesystem::remove(path); }
  ConfigText(const ConfigText&) = delete;
  ConfigText& operator=(const ConfigText&) = delete;

  std::string path = testing::TempDir() + "/puna_pace_flags_" + std::to_string(count++) + ".toml";
  static inline int count = 0;
};

// The longest time between two tokens of a stream while a long prompt comes in, on a machine that
// computes four prompt tokens in a millisecond.
double longest_gap_ms(const ServeFlags& flags) {
  const engine::EngineConfig config = engine_config(load_size(flags));
  const model::Tokenizer tokenizer = engine::tiny_tokenizer();
  VirtualClock clock;
  engine::NullBackend backend({.limits = {.num_blocks = 256,
                                          .max_num_seqs = 8,
                                          .max_batch_tokens = plan::kDefaultBatchTokens,
                                          .max_model_len = 2048,
                                          .vocab_size = engine::kTinyVocab},
                               .step_ns = 2 * kNsPerMs,
                               .decode_row_ns = 0,
                               .prefill_token_ns = kNsPerMs / 4},
                              &clock);
  engine::Engine engine(config, backend, tokenizer, clock);
  engine.calibrate(kNsPerSecond);
  const auto submit = [&](size_t prompt, int32_t output) {
    engine::Request request;
    request.prompt.resize(prompt);
    for (size_t i = 0; i < prompt; ++i) request.prompt[i] = static_cast<int32_t>(i % 256);
    request.stop = {.max_tokens = output, .ignore_eos = true};
    return engine.submit({request}, nullptr)->channels[0];
  };
  const engine::ChannelPtr stream = submit(8, 100);
  while (stream->next() == nullptr) engine.step();
  const engine::ChannelPtr intruder = submit(1500, 1);
  TimeNs last_ns = clock.now_ns();
  TimeNs longest_ns = 0;
  while (engine.step()) {
    if (stream->next() == nullptr) continue;
    longest_ns = std::max(longest_ns, clock.now_ns() - last_ns);
    last_ns = clock.now_ns();
  }
  EXPECT_NE(intruder->next(), nullptr);
  return static_cast<double>(longest_ns) / kNsPerMs;
}

TEST(PaceFlags, ReachTheScheduler) {
  const auto keeps = [](double target_ms) {  // with what 95 of 100 steps need
    return ::testing::AllOf(::testing::Gt(0.8 * target_ms), ::testing::Le(target_ms));
  };
  const auto whole_chunk = ::testing::DoubleEq(2 + kPrefillChunkTokens / 4.0);
  EXPECT_THAT(longest_gap_ms(parsed_flags({"m.gguf"})), keeps(50)) << "the default of the class";
  EXPECT_THAT(longest_gap_ms(parsed_flags({"m.gguf", "--tpot-target", "12"})), keeps(12));
  EXPECT_THAT(longest_gap_ms(parsed_flags({"m.gguf", "--tpot-target", "0"})), whole_chunk);
  EXPECT_THAT(longest_gap_ms(parsed_flags({"m.gguf", "--no-chunk-sizing"})), whole_chunk);
  const ConfigText file("[class.interactive]\ntpot-target-ms = 25\n");
  EXPECT_THAT(longest_gap_ms(parsed_flags({"m.gguf", "--config", file.path.c_str()})), keeps(25));
  EXPECT_THAT(longest_gap_ms(
                  parsed_flags({"m.gguf", "--config", file.path.c_str(), "--tpot-target", "12"})),
              keeps(12))
      << "flags win";
  const ConfigText both("no-chunk-sizing = true\ntpot-target = 12\n");
  const ServeFlags flags = parsed_flags({"m.gguf", "--config", both.path.c_str()});
  EXPECT_TRUE(flags.no_chunk_sizing);
  EXPECT_EQ(flags.classes[0].tpot_target_ns, 12 * kNsPerMs);
  EXPECT_EQ(flags.classes[1].tpot_target_ns, 200 * kNsPerMs) << "of interactive ones only";
  const auto negative = parse_serve({"m.gguf", "--tpot-target", "-1"});
  ASSERT_FALSE(negative.ok());
  EXPECT_THAT(std::string(negative.error().message()), ::testing::HasSubstr("--tpot-target"));
}

}  // namespace
}  // namespace puna::cli
