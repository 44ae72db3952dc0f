// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "base/sanitizers.h"
#include "cli/commands.h"
#include "cli/config_file.h"
#include "cli/flags.h"
#include "cli/help.h"
#include "cli/loaded_model.h"
#include "cli/model_source.h"
#include "cli/signals.h"

namespace puna::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Result<Command> parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "puna");
  return parse_command(static_cast<int>(arguments.size()), arguments.data());
}

ServeFlags serve_flags(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "serve");
  auto command = parse(std::move(arguments));
  EXPECT_TRUE(command.ok()) << command.error().message();
  return std::get<ServeFlags>(*command);
}

std::string serve_error(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "serve");
  const auto command = parse(std::move(arguments));
  EXPECT_FALSE(command.ok());
  if (command.ok()) return "";
  EXPECT_EQ(command.error().message().find('\n'), std::string::npos) << "one line";
  return command.error().message();
}

// Files below a folder of the test's own.
class CliTest : public ::testing::Test {
 protected:
  void SetUp() override {
    unsetenv("PUNA_API_KEY");
    unsetenv("PUNA_CPU");
    std::string pattern = ::testing::TempDir() + "/puna_cli_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string write(const std::string& text) {
    const std::string path = folder_ + "/puna.toml";
    std::ofstream(path) << text;
    return path;
  }
  std::string folder_;
};

TEST_F(CliTest, EveryHelpFitsAScreen) {
  for (const std::string_view help :
       {kMainHelp, kServeHelp, kRunHelp, kInspectHelp, kPlanHelp, kBenchHelp, kBenchEngineHelp,
        kBenchKernelsHelp, kBenchServeHelp, kSelftestHelp, kQuantizeHelp, kCheckHelp,
        kDivergenceHelp, kRouteHelp}) {
    std::istringstream lines{std::string(help)};
    std::string line;
    int count = 0;
    while (std::getline(lines, line)) {
      ++count;
      EXPECT_LE(line.size(), 100U) << line;
    }
    EXPECT_LE(count, 24);
  }
}

TEST_F(CliTest, EveryFlagIsInTheHelp) {
  const std::vector<std::pair<std::string, std::string_view>> helps = {
      {"serve", kServeHelp},
      {"run", kRunHelp},
      {"inspect", kInspectHelp},
      {"plan", kPlanHelp},
      {"quantize", kQuantizeHelp},
      {"bench engine", kBenchEngineHelp},
      {"bench kernels", kBenchKernelsHelp},
      {"bench serve", kBenchServeHelp},
      {"selftest", kSelftestHelp},
      {"check", kCheckHelp},
      {"divergence", kDivergenceHelp},
      {"route explain", kRouteHelp}};
  for (const auto& [name, help] : helps) {
    EXPECT_FALSE(flag_names(name).empty());
    for (const std::string& flag : flag_names(name)) {
      EXPECT_THAT(std::string(help), HasSubstr(flag)) << name;
    }
  }
}

TEST_F(CliTest, HelpAndVersionAreTexts) {
  EXPECT_EQ(std::get<Text>(*parse({})).text, kMainHelp);
  EXPECT_EQ(std::get<Text>(*parse({"--help"})).text, kMainHelp);
  EXPECT_EQ(std::get<Text>(*parse({"serve", "--help"})).text, kServeHelp);
  EXPECT_EQ(std::get<Text>(*parse({"run", "--help"})).text, kRunHelp);
  EXPECT_EQ(std::get<Text>(*parse({"inspect", "-h"})).text, kInspectHelp);
  EXPECT_EQ(std::get<Text>(*parse({"bench", "--help"})).text, kBenchHelp);
  EXPECT_EQ(std::get<Text>(*parse({"bench", "engine", "--help"})).text, kBenchEngineHelp);
  EXPECT_EQ(std::get<Text>(*parse({"bench", "kernels", "-h"})).text, kBenchKernelsHelp);
  EXPECT_EQ(std::get<Text>(*parse({"bench", "serve", "--help"})).text, kBenchServeHelp);
  EXPECT_THAT(std::get<Text>(*parse({"--version"})).text, HasSubstr("puna "));
}

TEST_F(CliTest, ServeReadsItsFlags) {
  const ServeFlags flags =
      serve_flags({"--model", "m.gguf", "--port", "0", "--api-key", "a", "--api-key", "b",
                   "--served-model-name=x", "--seed", "18446744073709551615", "--no-prefix-cache",
                   "--memory-budget", "80%", "--max-num-seqs", "4", "--admin-port", "9"});
  EXPECT_EQ(flags.model.model, "m.gguf");
  EXPECT_EQ(flags.port, 0);
  EXPECT_THAT(flags.api_keys, ElementsAre("a", "b"));
  EXPECT_THAT(flags.served_model_names, ElementsAre("x"));
  EXPECT_EQ(flags.seed, UINT64_MAX);
  EXPECT_TRUE(flags.no_prefix_cache);
  EXPECT_EQ(flags.model.memory_budget, "80%");
  EXPECT_EQ(flags.max_num_seqs, 4);
  EXPECT_EQ(flags.admin_port, 9);
  EXPECT_EQ(serve_flags({"m", "--device", "cuda", "--host-kv-memory", "25%"}).model.host_kv_memory,
            "25%");
  EXPECT_EQ(serve_flags({"m", "--device", "cuda", "--tuning-cache", "x"}).model.tuning_cache, "x");
  EXPECT_EQ(serve_flags({"--api-key", "a", "m.gguf"}).model.model, "m.gguf");
  EXPECT_EQ(serve_flags({"m.gguf", "--port", "1", "--port", "2"}).port, 2);
}

TEST_F(CliTest, TypesOfKvAndActivations) {
  using kernels::ActivationMode;
  using kernels::KvType;
  const auto model = [](std::vector<const char*> arguments) {
    return serve_flags(std::move(arguments)).model;
  };
  EXPECT_EQ(model({"m"}).activations, ActivationMode::kInt8);
  EXPECT_EQ(model({"m"}).kv_type(), KvType::kBF16);
  EXPECT_EQ(model({"m", "--activations", "int8-wide"}).activations, ActivationMode::kInt8Wide);
  EXPECT_EQ(model({"m", "--activations", "int8-wide"}).kv_type(), KvType::kBF16);
  EXPECT_EQ(model({"m", "--activations", "float"}).activations, ActivationMode::kFloat);
  EXPECT_EQ(model({"m", "--activations", "float"}).kv_type(), KvType::kF32);
  EXPECT_EQ(model({"m", "--activations", "float", "--kv-dtype", "int8"}).kv_type(), KvType::kInt8);
  EXPECT_EQ(model({"m", "--kv-dtype", "bf16"}).kv_type(), KvType::kBF16);
  EXPECT_EQ(model({"m", "--kv-dtype", "f32"}).kv_type(), KvType::kF32);
  EXPECT_EQ(model({"m", "--kv-dtype", "f32", "--kv-dtype", "auto"}).kv_type(), KvType::kBF16);
  const std::string path = write("kv-dtype = \"int8\"\nactivations = \"float\"\n");
  EXPECT_EQ(model({"m", "--config", path.c_str()}).kv_type(), KvType::kInt8);
  EXPECT_EQ(model({"m", "--config", path.c_str()}).activations, ActivationMode::kFloat);
  EXPECT_EQ(model({"m", "--config", path.c_str(), "--kv-dtype", "bf16"}).kv_type(), KvType::kBF16);
}

TEST_F(CliTest, TheEnvironmentForcesAnInstructionSetThatTheFlagOverrides) {
  setenv("PUNA_CPU", "avx2", 1);
  EXPECT_EQ(serve_flags({"m"}).model.isa, "avx2");
  EXPECT_EQ(std::get<RunFlags>(*parse({"run", "m"})).model.isa, "avx2");
  EXPECT_EQ(std::get<BenchEngineFlags>(*parse({"bench", "engine", "m"})).model.isa, "avx2");
  EXPECT_EQ(std::get<BenchKernelsFlags>(*parse({"bench", "kernels"})).model.isa, "avx2");
  EXPECT_EQ(serve_flags({"m", "--isa", "scalar"}).model.isa, "scalar");
  setenv("PUNA_CPU", "mmx", 1);
  EXPECT_THAT(serve_error({"m"}), HasSubstr("PUNA_CPU"));
  EXPECT_THAT(serve_error({"m"}), HasSubstr("mmx"));
  EXPECT_EQ(serve_flags({"m", "--isa", "scalar"}).model.isa, "scalar");
  for (const std::vector<const char*>& bad : std::vector<std::vector<const char*>>{
           {"run", "m"}, {"bench", "engine", "m"}, {"bench", "kernels"}}) {
    ASSERT_FALSE(parse(bad).ok()) << bad.front();
    EXPECT_THAT(parse(bad).error().message(), HasSubstr("mmx"));
  }
  EXPECT_TRUE(parse({"inspect", "m"}).ok());  // computes nothing
  unsetenv("PUNA_CPU");
}

TEST_F(CliTest, StartSaysWhatComputes) {
  const std::vector<std::string_view> old_cpu = {"scalar"};
  EXPECT_THAT(slow_cpu_warning(old_cpu), HasSubstr("no AVX2"));
  EXPECT_TRUE(slow_cpu_warning(old_cpu).ends_with("\n"));
  const std::vector<std::string_view> newer_cpu = {"scalar", "avx2"};
  EXPECT_EQ(slow_cpu_warning(newer_cpu), "");
  EXPECT_EQ(compute_summary(serve_flags({"m", "--isa", "scalar", "--activations", "float"}).model),
            "scalar, float activations");
  EXPECT_THAT(compute_summary(serve_flags({"m"}).model), HasSubstr(", int8 activations"));
}

TEST_F(CliTest, BadFlagsAreOneLineThatNamesTheFlag) {
  EXPECT_THAT(serve_error({"--model", "m", "--port", "65536"}), HasSubstr("--port"));
  EXPECT_THAT(serve_error({"--model", "m", "--port", "65536"}), HasSubstr("65536"));
  EXPECT_THAT(serve_error({"--model", "m", "--port", "80a"}), HasSubstr("--port"));
  EXPECT_THAT(serve_error({"--model", "m", "--max-num-seqs", "0"}), HasSubstr("--max-num-seqs"));
  EXPECT_THAT(serve_error({"--model", "m", "--max-model-len", "99999999999999999999"}),
              HasSubstr("--max-model-len"));
  EXPECT_THAT(serve_error({"--model", "m", "--seed", "-1"}), HasSubstr("--seed"));
  for (const char* device : {"tpu", "cuda:", "cuda:x", "cuda:-1", "cuda1"}) {
    EXPECT_THAT(serve_error({"--model", "m", "--device", device}), HasSubstr("--device")) << device;
  }
  EXPECT_THAT(serve_error({"--model", "m", "--isa", "sse"}), HasSubstr("--isa"));
  EXPECT_THAT(serve_error({"--model", "m", "--kv-dtype", "fp8"}), HasSubstr("--kv-dtype"));
  EXPECT_THAT(serve_error({"--model", "m", "--kv-dtype", "fp8"}), HasSubstr("fp8"));
  EXPECT_THAT(serve_error({"--model", "m", "--activations", "int4"}), HasSubstr("--activations"));
  EXPECT_THAT(serve_error({"--model", "m", "--frobnicate"}), HasSubstr("--frobnicate"));
  EXPECT_THAT(serve_error({"--model", "m", "--port"}), HasSubstr("--port"));
  EXPECT_THAT(serve_error({"--model", "m", "--api-key", ""}), HasSubstr("--api-key"));
  EXPECT_THAT(serve_error({"--model", "m", "--chat-template", "jinja"}),
              HasSubstr("--chat-template"));
  EXPECT_THAT(serve_error({}), HasSubstr("--model"));
  EXPECT_THAT(serve_error({"--model", "m", "--host-kv-memory", "1GiB"}),
              HasSubstr("--device cuda"));
  EXPECT_THAT(serve_error({"--model", "m", "--tuning-cache", "x"}), HasSubstr("--device cuda"));
  const auto check = parse({"check", "base", "variant", "--tuning-cache", "x"});
  ASSERT_FALSE(check.ok());
  EXPECT_THAT(check.error().message(), HasSubstr("--device cuda"));
  EXPECT_THAT(serve_error({"--model", "m", "--tls-cert", "c.pem"}), HasSubstr("--tls-key"));
  EXPECT_THAT(serve_error({"--model", "m", "--max-num-batched-tokens", "8", "--max-num-seqs", "9"}),
              HasSubstr("--max-num-batched-tokens 8"));
  for (const char* temperature : {"nan", "inf", "-1", "warm"}) {
    EXPECT_FALSE(parse({"run", "m", "hi", "--temperature", temperature}).ok()) << temperature;
  }
  EXPECT_FALSE(parse({"frobnicate"}).ok());
  EXPECT_FALSE(parse({"inspect"}).ok());
}

TEST_F(CliTest, RunTellsAnEmptyPromptFromNone) {
  EXPECT_FALSE(std::get<RunFlags>(*parse({"run", "m"})).prompt_given);
  const auto flags = std::get<RunFlags>(*parse({"run", "m", "hi", "--seed", "0", "--raw"}));
  EXPECT_TRUE(flags.prompt_given);
  EXPECT_TRUE(flags.seed_given);
  EXPECT_TRUE(flags.raw);
}

TEST_F(CliTest, PlanReadsItsFlags) {
  const auto plan = [](std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "plan");
    auto command = parse(std::move(arguments));
    EXPECT_TRUE(command.ok()) << command.error().message();
    return std::get<PlanFlags>(*command);
  };
  EXPECT_EQ(plan({"m.gguf"}).model.model, "m.gguf");
  EXPECT_EQ(plan({"m.gguf"}).model.device, "cpu");
  const PlanFlags flags =
      plan({"--shape", "llama-3-8b", "--weights", "Q4_K", "--device", "a100-40g", "--max-num-seqs",
            "7", "--max-num-batched-tokens", "9", "--max-model-len", "100", "--memory-budget", "9%",
            "--kv-dtype", "bf16", "--json"});
  EXPECT_EQ(flags.shape, "llama-3-8b");
  EXPECT_EQ(flags.weights, "Q4_K");
  EXPECT_EQ(flags.model.device, "a100-40g");
  EXPECT_EQ(flags.max_num_seqs, 7);
  EXPECT_EQ(flags.max_num_batched_tokens, 9);
  EXPECT_EQ(flags.model.max_model_len, 100);
  EXPECT_EQ(flags.model.memory_budget, "9%");
  EXPECT_TRUE(flags.json);
  EXPECT_FALSE(parse({"plan"}).ok());
  EXPECT_FALSE(parse({"plan", "m.gguf", "--weights", "Q4_K"}).ok());
  EXPECT_FALSE(parse({"plan", "--shape", "llama-9"}).ok());
  EXPECT_FALSE(parse({"plan", "--shape", "llama-3-8b", "--device", "cuda"}).ok());
}

TEST_F(CliTest, BenchReadsItsFlags) {
  const auto engine = std::get<BenchEngineFlags>(
      *parse({"bench", "engine", "--model", "m", "--prompt", "100", "--output", "9", "--batch",
              "2,16", "--chunk", "64", "--threads", "2", "--json"}));
  EXPECT_EQ(engine.model.model, "m");
  EXPECT_EQ(engine.prompt, 100);
  EXPECT_EQ(engine.output, 9);
  EXPECT_THAT(engine.batch, ElementsAre(2, 16));
  EXPECT_EQ(engine.chunk, 64);
  EXPECT_EQ(engine.model.threads, 2);
  EXPECT_TRUE(engine.json);
  const auto defaults = std::get<BenchEngineFlags>(*parse({"bench", "engine", "m"}));
  EXPECT_THAT(defaults.batch, ElementsAre(1, 8, 32));
  const auto kernels =
      std::get<BenchKernelsFlags>(*parse({"bench", "kernels", "--filter", "Q4", "--json"}));
  EXPECT_EQ(kernels.filter, "Q4");
  EXPECT_TRUE(kernels.json);
}

TEST_F(CliTest, BenchServeReadsItsFlags) {
  const auto flags = std::get<BenchServeFlags>(*parse(
      {"bench", "serve", "--url", "http://h:1", "--rate", "2.5", "--tenant", "a=k:2", "--tenant",
       "b", "--classes", "x:1,y:2", "--slo-ttft-ms", "300", "--json", "-", "--requests", "7"}));
  EXPECT_EQ(flags.url, "http://h:1");
  EXPECT_DOUBLE_EQ(flags.rate, 2.5);
  EXPECT_THAT(flags.tenants, ElementsAre("a=k:2", "b"));
  EXPECT_THAT(flags.classes, ElementsAre("x:1", "y:2"));
  EXPECT_EQ(flags.slo_ttft_ms, 300);
  EXPECT_FALSE(flags.slo_tpot_ms.has_value());
  EXPECT_EQ(flags.json, "-");
  EXPECT_EQ(flags.requests, 7);
}

TEST_F(CliTest, SelftestReadsItsFlags) {
  const auto flags = std::get<SelftestFlags>(
      *parse({"selftest", "--chaos", "2m", "--model", "m", "--", "--max-num-seqs", "4"}));
  EXPECT_DOUBLE_EQ(flags.chaos_s, 120);
  EXPECT_EQ(flags.model, "m");
  EXPECT_THAT(flags.serve_flags, ElementsAre("--max-num-seqs", "4"));
  EXPECT_DOUBLE_EQ(
      std::get<SelftestFlags>(*parse({"selftest", "--chaos", "5", "--url", "u"})).chaos_s, 5);
  const auto error = [](std::vector<const char*> arguments) {
    const auto command = parse(std::move(arguments));
    return command.ok() ? std::string() : command.error().message();
  };
  EXPECT_THAT(error({"selftest", "--chaos", "5"}), HasSubstr("--url"));
  EXPECT_THAT(error({"selftest", "--url", "u"}), HasSubstr("--chaos"));
  EXPECT_THAT(error({"selftest", "--chaos", "x", "--url", "u"}), HasSubstr("--chaos"));
  EXPECT_THAT(error({"selftest", "--chaos", "5", "--url", "u", "--model", "m"}),
              HasSubstr("--url"));
  EXPECT_THAT(error({"selftest", "--chaos", "5", "--model", "m", "--pid", "9"}),
              HasSubstr("--pid"));
}

TEST_F(CliTest, BadBenchServeFlagsAreOneLineThatNamesTheFlag) {
  const auto error = [](std::vector<const char*> more) {
    std::vector<const char*> arguments = {"bench", "serve"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const auto command = parse(std::move(arguments));
    if (!command.ok()) return command.error().message();
    const Result<int> result = bench_serve(std::get<BenchServeFlags>(*command));
    EXPECT_FALSE(result.ok());
    return result.ok() ? std::string() : result.error().message();
  };
  EXPECT_THAT(error({"--rate", "0"}), HasSubstr("--rate"));
  EXPECT_THAT(error({"--rate", "1", "--bursts", "1:1"}), HasSubstr("--bursts"));
  EXPECT_THAT(error({"--bursts", "1"}), HasSubstr("--bursts"));
  EXPECT_THAT(error({"--trace", "/no/such"}), HasSubstr("/no/such"));
  EXPECT_THAT(error({"--prompt-tokens", "zipf:1"}), HasSubstr("--prompt-tokens"));
  EXPECT_THAT(error({"--output-tokens", "0"}), HasSubstr("--output-tokens"));
  EXPECT_THAT(error({"--tenant", "=x"}), HasSubstr("--tenant"));
  EXPECT_THAT(error({"--classes", "x:0"}), HasSubstr("--classes"));
  EXPECT_THAT(error({"--url", "https://x"}), HasSubstr("https is not supported"));
  EXPECT_THAT(error({"--prompt-ids", "1000"}), HasSubstr("--endpoint completions"));
  EXPECT_THAT(error({"--url", "http://127.0.0.1:1"}), HasSubstr("no server at 127.0.0.1:1"));
}

TEST_F(CliTest, BadBenchFlagsAreOneLineThatNamesTheFlag) {
  const auto error = [](std::vector<const char*> arguments) {
    const auto command = parse(std::move(arguments));
    EXPECT_FALSE(command.ok());
    return command.ok() ? std::string() : command.error().message();
  };
  EXPECT_THAT(error({"bench", "engine"}), HasSubstr("--model"));
  EXPECT_THAT(error({"bench", "engine", "m", "--batch", "1,0"}), HasSubstr("--batch"));
  EXPECT_THAT(error({"bench", "engine", "m", "--batch", "1,x"}), HasSubstr("--batch"));
  EXPECT_THAT(error({"bench", "engine", "m", "--prompt", "0"}), HasSubstr("--prompt"));
  EXPECT_THAT(error({"bench", "engine", "m", "--output", "-1"}), HasSubstr("--output"));
  EXPECT_THAT(error({"bench", "engine", "m", "--chunk", "0"}), HasSubstr("--chunk"));
  EXPECT_THAT(error({"bench", "kernels", "--rows", "1"}), HasSubstr("--rows"));
  EXPECT_THAT(error({"bench"}), HasSubstr("ubcommand"));
  EXPECT_THAT(error({"bench", "fly"}), HasSubstr("ubcommand"));
}

TEST_F(CliTest, ConfigFileFillsWhatTheCommandLineLeavesOut) {
  const std::string path = write(
      "# a comment\nmodel = \"m.gguf\"\nport = 9000\nno-prefix-cache = true\n"
      "served-model-name = [\"one\", \"two\"]\napi-key = \"file\"\n");
  const ServeFlags flags = serve_flags({"--config", path.c_str(), "--port", "9001"});
  EXPECT_EQ(flags.model.model, "m.gguf");
  EXPECT_EQ(flags.port, 9001);
  EXPECT_TRUE(flags.no_prefix_cache);
  EXPECT_THAT(flags.served_model_names, ElementsAre("one", "two"));
  EXPECT_THAT(flags.api_keys, ElementsAre("file"));
}

TEST_F(CliTest, TheEnvironmentBringsAnApiKeyThatFlagsOverride) {
  setenv("PUNA_API_KEY", "environment", 1);
  const std::string path = write("api-key = \"file\"\n");
  EXPECT_THAT(serve_flags({"--model", "m", "--config", path.c_str()}).api_keys,
              ElementsAre("environment"));
  EXPECT_THAT(serve_flags({"--model", "m", "--api-key", "flag"}).api_keys, ElementsAre("flag"));
  unsetenv("PUNA_API_KEY");
}

TEST_F(CliTest, TheExamplesOfDeployLoad) {
  const std::string folder = std::string(PUNA_SOURCE_DIR) + "/deploy/";
  const std::string config = folder + "puna.toml";
  const std::string keys = folder + "keys.toml";
  const ServeFlags flags = serve_flags(
      {"m.gguf", "--config", config.c_str(), "--api-keys-file", keys.c_str(), "--api-key", "x"});
  EXPECT_EQ(flags.admin_port, 8081);
  const ClassPolicies defaults = engine::EngineConfig{}.classes;
  for (size_t i = 0; i < defaults.size(); ++i) {  // the example says that it shows the defaults
    EXPECT_EQ(flags.classes[i].max_queued_tokens, defaults[i].max_queued_tokens);
    EXPECT_EQ(flags.classes[i].max_queue_time_ns, defaults[i].max_queue_time_ns);
    EXPECT_EQ(flags.classes[i].default_output_tokens, defaults[i].default_output_tokens);
    EXPECT_EQ(flags.classes[i].kv_share, defaults[i].kv_share);
    EXPECT_EQ(flags.classes[i].tpot_target_ns, defaults[i].tpot_target_ns);
  }
  ASSERT_EQ(flags.key_policies.size(), 4U);
  EXPECT_EQ(flags.key_policies[0].key, "x");
  EXPECT_EQ(flags.key_policies[0].tenant, "default");
  EXPECT_EQ(flags.key_policies[2].tenant, "alice");
  EXPECT_EQ(flags.key_policies[2].weight, 2.0);
  EXPECT_EQ(flags.key_policies[2].tokens_per_minute, 60'000);
  EXPECT_EQ(flags.key_policies[3].highest_class, engine::RequestClass::kBatch);
  EXPECT_EQ(api::tenants_of(flags.key_policies).size(), 3U);
}

TEST_F(CliTest, BadClassesNameFileLineAndKey) {
  const auto error = [&](const std::string& text) {
    const std::string path = write(text);
    return serve_error({"m.gguf", "--config", path.c_str()});
  };
  EXPECT_THAT(error("port = 1\n[class.batch]\nkv-shares = 1"),
              HasSubstr("puna.toml:3: class.batch.kv-shares is no setting"));
  EXPECT_THAT(error("[class.batch]\nkv-share = 1.5"),
              HasSubstr("puna.toml:2: class.batch.kv-share must be a number from 0.01 to 1"));
  EXPECT_THAT(error("[class.batch]\nkv-share = 0"), HasSubstr("puna.toml:2: class.batch.kv-share"));
  EXPECT_THAT(error("[class.batch]\nkv-share = 0.5\n[class.background]\nkv-share = 0.6"),
              HasSubstr("class.background.kv-share 0.6 is above class.batch.kv-share 0.5"));
  EXPECT_THAT(error("[class.batch]\nmax-queued-tokens = 1.5"), HasSubstr("must be an integer"));
  EXPECT_THAT(error("[class.batch]\ndefault-output-tokens = 9\nmax-output-tokens = 8"),
              HasSubstr("puna.toml:2: class.batch.default-output-tokens is above"));
  EXPECT_THAT(error("[class.urgent]\n"), HasSubstr("puna.toml:1: there is no class \"urgent\""));
  EXPECT_THAT(error("class = 3"), HasSubstr("puna.toml:1: class must be tables"));
}

TEST_F(CliTest, BadKeyFilesNameFileLineAndKey) {
  const auto error = [&](const std::string& text) {
    const std::string path = write(text);
    return serve_error({"m.gguf", "--api-keys-file", path.c_str()});
  };
  const std::string good = "[[key]]\nkey = 'hidden'\nname = 'a'\n";
  EXPECT_THAT(serve_error({"m.gguf", "--api-keys-file", "/nowhere"}), HasSubstr("no such file"));
  EXPECT_THAT(error(""), HasSubstr("needs 1 to 10000 tables [[key]]"));
  EXPECT_THAT(error("[[key]]\nname = 'a'"), HasSubstr("puna.toml:1: key has no \"key\""));
  EXPECT_THAT(error("[[key]]\nkey = 'a'"), HasSubstr("puna.toml:1: key has no \"name\""));
  EXPECT_THAT(error(good + "rate = 1"), HasSubstr("puna.toml:4: key.rate is no setting"));
  EXPECT_THAT(error(good + "weight = 0"), HasSubstr("puna.toml:4: key.weight must be"));
  EXPECT_THAT(error(good + "weight = nan"), HasSubstr("puna.toml:4: key.weight must be"));
  EXPECT_THAT(error(good + "tokens-per-minute = -1"), HasSubstr("key.tokens-per-minute must be"));
  EXPECT_THAT(error(good + "class = 'vip'"), HasSubstr("puna.toml:4: key.class must be"));
  EXPECT_THAT(error("[keys]\n"), HasSubstr("puna.toml:1: there is no setting \"keys\""));
  const std::string twice = error(good + good);
  EXPECT_THAT(twice, HasSubstr("puna.toml:5: key.key is there twice"));
  EXPECT_THAT(twice, ::testing::Not(HasSubstr("hidden")));
  EXPECT_THAT(error(good + "[[key]]\nkey = 'two'\nname = 'a'\nweight = 2"),
              HasSubstr("puna.toml:6: key.name a has another weight"));
  EXPECT_THAT(error(good + "cache-share = 0.6\n[[key]]\nkey = 'x'\nname = 'b'\ncache-share = 0.5"),
              HasSubstr("puna.toml:8: key.cache-share makes 1.10 of the cache"));
}

TEST_F(CliTest, BadConfigFilesNameTheFileAndTheLine) {
  const auto error = [this](const std::string& text) {
    const std::string path = write(text);
    return serve_error({"--model", "m", "--config", path.c_str()});
  };
  EXPECT_THAT(error("\nprot = 9000\n"), HasSubstr("puna.toml:2: there is no setting \"prot\""));
  EXPECT_THAT(error("port = 70000\n"), HasSubstr("puna.toml:1: --port"));
  EXPECT_THAT(error("port = \n"), HasSubstr("puna.toml:1"));
  EXPECT_THAT(error("[server]\nport = 1\n"), HasSubstr("puna.toml:1: server must be"));
  EXPECT_THAT(error("port = 2020-01-01\n"), HasSubstr("port must be"));
  EXPECT_THAT(error("port = [1, 2]\n"), HasSubstr("--port"));
  EXPECT_THAT(error("config = \"other.toml\"\n"), HasSubstr("there is no setting"));
  EXPECT_THAT(serve_error({"--model", "m", "--config", "/no/such.toml"}),
              HasSubstr("/no/such.toml"));
}

TEST_F(CliTest, ADeviceIsTheCpuOrAGpuByNumber) {
  EXPECT_FALSE(cuda_ordinal(serve_flags({"m"}).model.device).has_value());
  EXPECT_EQ(cuda_ordinal(serve_flags({"m", "--device", "cuda"}).model.device), 0);
  EXPECT_EQ(cuda_ordinal(serve_flags({"m", "--device", "cuda:12"}).model.device), 12);
  const std::string path = write("device = \"cuda:1\"\nmax-num-batched-tokens = 777\n");
  const ServeFlags flags = serve_flags({"m", "--config", path.c_str()});
  EXPECT_EQ(cuda_ordinal(flags.model.device), 1);
  EXPECT_EQ(flags.max_num_seqs, 0);  // the plan chooses
  EXPECT_EQ(flags.max_num_batched_tokens, 777);
  EXPECT_FALSE(parse({"bench", "kernels", "--device", "cuda"}).ok());
}

TEST_F(CliTest, RandomWeightsTakeTheModelsPlace) {
  EXPECT_THAT(serve_error({"--random-weights", "llama-3-8b"}), HasSubstr("--device cuda"));
  EXPECT_THAT(serve_error({"m", "--random-weights", "llama-3-8b", "--device", "cuda"}),
              HasSubstr("exclude"));
  EXPECT_THAT(serve_error({"m", "--tokenizer", "t"}), HasSubstr("--tokenizer"));
  const auto run = parse({"run", "--random-weights", "llama-3-8b", "--device", "cuda", "Hello"});
  ASSERT_TRUE(run.ok()) << run.error().message();
  EXPECT_EQ(std::get<RunFlags>(*run).prompt, "Hello");
  EXPECT_TRUE(std::get<RunFlags>(*run).prompt_given);
  EXPECT_EQ(std::get<RunFlags>(*run).model.model, "");

  ModelFlags flags;
  flags.random_weights = "llama-3-8b:2";
  auto source = ModelSource::open(flags);
  ASSERT_TRUE(source.ok()) << source.error().message();
  EXPECT_EQ(source->checkpoint(), nullptr);
  EXPECT_EQ(source->spec().num_layers, 2);
  const auto tokenizer = source->load_tokenizer(flags);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message();
  EXPECT_EQ(tokenizer->tokenizer->vocab_size(), source->spec().vocab_size);
  EXPECT_TRUE(PUNA_SANITIZED || tokenizer->bytes > 1U << 20);  // their malloc tells nothing
  flags.random_weights = "smollm2-135m";                       // has fewer tokens than the stand-in
  EXPECT_THAT(ModelSource::open(flags)->load_tokenizer(flags).error().message(),
              HasSubstr("49152"));
  flags.random_weights = "llama-3-8b:33";
  EXPECT_THAT(ModelSource::open(flags).error().message(), HasSubstr("--random-weights"));
}

TEST_F(CliTest, AMachineWithoutAGpuSaysSo) {
  ModelFlags flags;
  flags.device = "cuda:31";
  flags.random_weights = "llama-3-8b:1";
  const auto source = ModelSource::open(flags);
  ASSERT_TRUE(source.ok());
  const auto backend = load_backend(*source, flags, {});
  ASSERT_FALSE(backend.ok());
  EXPECT_EQ(backend.error().code(), ErrorCode::kUnavailable);
  EXPECT_THAT(backend.error().message(), HasSubstr("--device cuda:31"));
}

TEST(SignalsTest, ArriveAsValues) {
  Signals signals;
  EXPECT_FALSE(signals.wait(0));
  raise(SIGTERM);
  EXPECT_EQ(signals.wait(1000), SIGTERM);
  EXPECT_FALSE(signals.wait(0));
}

}  // namespace
}  // namespace puna::cli
