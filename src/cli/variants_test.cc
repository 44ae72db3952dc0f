// SPDX-License-Identifier: Apache-2.0
// The [[model]] table of --config, and what the variants' files and certificates must agree on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "check/certificate.h"
#include "check/weights_hash.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/loaded_variants.h"
#include "cli/opened_variants.h"
#include "cli/version.h"

namespace puna::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

namespace fs = std::filesystem;

constexpr std::string_view kKey = "a key for this test alone";

// Copies of the tiny model in a folder of the test's own.
class VariantsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    unsetenv("PUNA_API_KEY");
    unsetenv("PUNA_CPU");
    std::string pattern = ::testing::TempDir() + "/puna_variants_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    for (const char* name : {"base", "other"}) {
      fs::copy(std::string(PUNA_GOLDEN_DIR) + "/tiny_llama_hf", folder_ + "/" + name,
               fs::copy_options::recursive);
    }
    write("check.key", kKey);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string write(const std::string& name, std::string_view text) const {
    std::ofstream(folder_ + "/" + name) << text;
    return folder_ + "/" + name;
  }
  // Text with FOLDER for the folder.
  std::string config(std::string text) const {
    const std::string name = "FOLDER";
    for (size_t at = 0; (at = text.find(name, at)) != std::string::npos;) {
      text.replace(at, name.size(), folder_);
    }
    return write("models.toml", text);
  }
  static Result<Command> parse(std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "puna");
    return parse_command(static_cast<int>(arguments.size()), arguments.data());
  }
  std::string error(const std::string& text, std::vector<const char*> more = {}) const {
    const std::string path = config(text);
    std::vector<const char*> arguments = {"serve", "--config", path.c_str()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const auto command = parse(arguments);
    EXPECT_FALSE(command.ok()) << text;
    return command.ok() ? "" : command.error().message();
  }
  ServeFlags flags(const std::string& text) const {
    const std::string path = config(text);
    auto command = parse({"serve", "--config", path.c_str(), "--threads", "2"});
    EXPECT_TRUE(command.ok()) << command.error().message();
    return std::get<ServeFlags>(*command);
  }
  Result<OpenedVariants> open(const std::string& text) const {
    const ServeFlags parsed = flags(text);
    return open_variants(*parsed.variants, parsed.model);
  }
  std::string open_error(const std::string& text) const {
    const auto opened = open(text);
    EXPECT_FALSE(opened.ok());
    return opened.ok() ? "" : opened.error().message();
  }

  check::Certificate certificate() const {
    check::Certificate made;
    made.base_hash = *check::weights_hash(folder_ + "/base");
    made.variant_hash = *check::weights_hash(folder_ + "/other");
    made.build = kVersion;
    made.device = "cpu";
    made.kv_dtype = "int8";
    made.base_kv_dtype = "bf16";
    made.activations = "int8";
    made.template_name = "llama3";
    made.delta = 0.03;
    for (const auto& [name, verdict] :
         {std::pair("edit", check::Verdict::kPass), std::pair("code", check::Verdict::kRefuse)}) {
      check::FamilyCertificate& family = made.families.emplace_back();
      family.name = name;
      family.n = 500;
      family.verdict = verdict;
    }
    return made;
  }
  void write_certificate(check::Certificate certificate) const {
    sign(certificate, check::SigningKey::load(folder_ + "/check.key").value());
    write("other.json", certificate_json(certificate));
  }

  std::string folder_;
};

constexpr std::string_view kTwo = R"(
threads = 2
chat-template = "llama3"
[[model]]
name = "tiny"
certificate-key = "FOLDER/check.key"
[[model.variant]]
name = "small"
path = "FOLDER/other"
kv-dtype = "int8"
certificate = "FOLDER/other.json"
[[model.variant]]
name = "full"
path = "FOLDER/base"
role = "base"
)";

TEST_F(VariantsTest, TheTableIsRead) {
  const ServeFlags read = flags(std::string(kTwo));
  ASSERT_TRUE(read.variants);
  EXPECT_EQ(read.variants->name, "tiny");
  ASSERT_EQ(read.variants->variants.size(), 2U);
  EXPECT_EQ(read.variants->variants[0].kv_dtype, kernels::KvType::kInt8);
  EXPECT_TRUE(read.variants->variants[1].base);
  EXPECT_THAT(read.variants->variants[1].where, AllOf(HasSubstr("--config "), HasSubstr(":12: ")));
  EXPECT_EQ(read.model.chat_template, "llama3");
}

TEST_F(VariantsTest, TheExampleIsRead) {
  const std::string path = std::string(PUNA_SOURCE_DIR) + "/deploy/models.toml";
  const auto command = parse({"serve", "--config", path.c_str()});
  ASSERT_TRUE(command.ok()) << command.error().message();
  EXPECT_EQ(std::get<ServeFlags>(*command).variants->variants.size(), 3U);
}

TEST_F(VariantsTest, ErrorsNameFileLineAndKey) {
  const std::string base = "[[model.variant]]\nname = \"b\"\npath = \"x\"\nrole = \"base\"\n";
  const std::string head = "[[model]]\nname = \"m\"\n";
  const auto expect = [&](const std::string& text, std::string_view line, std::string_view what) {
    EXPECT_THAT(error(text), AllOf(HasSubstr("models.toml:" + std::string(line) + ": "),
                                   HasSubstr(std::string(what))));
  };
  expect(head + "nme = 1\n" + base, "3", "model.nme is no setting");
  expect("[[model]]\n" + base, "1", "model has no \"name\"");
  expect(head, "1", "needs 1 to 16 tables [[model.variant]]");
  expect(head + base + base, "7", "has the name \"b\" of another");
  expect(head + "[[model.variant]]\npath = \"x\"\n", "3", "model.variant has no \"name\"");
  expect(head + "[[model.variant]]\nname = \"b\"\n", "3", "model.variant has no \"path\"");
  expect(head + "[[model.variant]]\nname = \"a b\"\n", "4", "model.variant.name must have");
  expect(head + "[[model.variant]]\nname = \"b\"\npath = \"x\"\n", "1", "no variant with role");
  expect(head + "[[model.variant]]\nname = \"b\"\nkv-dtype = \"int4\"\n", "5",
         "model.variant.kv-dtype must be");
  expect(head + "[[model.variant]]\nname = \"b\"\npath = \"x\"\nrole = \"main\"\n", "6",
         "model.variant.role must be \"base\"");
  expect(head + base + "certificate = \"c\"\n", "7", "model.variant.certificate is not for the");
  expect(head + base + "[[model]]\nname = \"n\"\n", "1", "must be one table [[model]]");
  expect(head + base + "[[model.variant]]\nname = \"c\"\npath = \"x\"\nrole = \"base\"\n", "1",
         "more than one variant");
}

TEST_F(VariantsTest, FlagsThatSayTheSameAreRefused) {
  EXPECT_THAT(error(std::string(kTwo), {"--model", "m.gguf"}), HasSubstr("--model and [[model]]"));
  EXPECT_THAT(error(std::string(kTwo), {"--served-model-name", "m"}),
              HasSubstr("--served-model-name and [[model]]"));
  EXPECT_THAT(error(std::string(kTwo), {"--device", "cuda"}), HasSubstr("on the CPU only"));
}

TEST_F(VariantsTest, ACertificateGivesItsVerdicts) {
  write_certificate(certificate());
  const auto opened = open(std::string(kTwo));
  ASSERT_TRUE(opened.ok()) << opened.error().message();
  ASSERT_EQ(opened->facts.size(), 2U);
  EXPECT_EQ(opened->facts[0].name, "full");  // the base is first
  const route::Variant& small = opened->facts[1];
  EXPECT_TRUE(small.passes(TaskFamily::kEdit));
  EXPECT_EQ(small.verdicts[index_of(TaskFamily::kCode)], route::Verdict::kRefused);
  EXPECT_EQ(small.verdicts[index_of(TaskFamily::kAlgebra)], route::Verdict::kUntested);
  EXPECT_TRUE(small.own_items_pass);
  EXPECT_LT(small.cost, opened->facts[0].cost);  // the same weights, smaller keys and values
}

TEST_F(VariantsTest, ARefusalOnTheUsersOwnItemsCounts) {
  check::Certificate made = certificate();
  made.families.emplace_back().name = "gsm8k:items.jsonl";
  made.families.back().verdict = check::Verdict::kRefuse;
  write_certificate(made);
  const auto opened = open(std::string(kTwo));
  ASSERT_TRUE(opened.ok()) << opened.error().message();
  EXPECT_FALSE(opened->facts[1].own_items_pass);
}

TEST_F(VariantsTest, ACertificateOfSomethingElseIsRefused) {
  const auto refused = [&](auto change) {
    check::Certificate made = certificate();
    change(made);
    write_certificate(made);
    return open_error(std::string(kTwo));
  };
  using Made = check::Certificate&;
  EXPECT_THAT(refused([](Made made) { made.variant_hash = "00"; }),
              AllOf(HasSubstr("models.toml:7: "), HasSubstr("\"small\""), HasSubstr("SHA-256")));
  EXPECT_THAT(refused([](Made made) { made.base_hash = "00"; }), HasSubstr("a base whose SHA-256"));
  EXPECT_THAT(refused([](Made made) { made.build = "0.0.1"; }), HasSubstr("the build 0.0.1, not"));
  EXPECT_THAT(refused([](Made made) { made.kv_dtype = "bf16"; }),
              HasSubstr("the KV type bf16, not int8"));
  EXPECT_THAT(refused([](Made made) { made.base_kv_dtype = "f32"; }),
              HasSubstr("the KV type f32, not bf16"));
  EXPECT_THAT(refused([](Made made) { made.activations = "float"; }),
              HasSubstr("activations in float, not int8"));
  EXPECT_THAT(refused([](Made made) { made.template_name = "chatml"; }),
              HasSubstr("template chatml, not llama3"));
}

TEST_F(VariantsTest, AChangedFileOrCertificateIsRefused) {
  write_certificate(certificate());
  std::ifstream file(folder_ + "/other.json");
  std::stringstream read;
  read << file.rdbuf();
  std::string text = read.str();
  const size_t at = text.find("\"refuse\"");
  ASSERT_NE(at, std::string::npos);
  write("other.json", text.substr(0, at) + "\"pass\"" + text.substr(at + 8));
  EXPECT_THAT(open_error(std::string(kTwo)), HasSubstr("models.toml:7: model.variant \"small\""));
  write("other.json", text);
  EXPECT_TRUE(open(std::string(kTwo)).ok());
  write("check.key", "another key than the one that signed");
  EXPECT_THAT(open_error(std::string(kTwo)), HasSubstr("key"));
  write("check.key", kKey);
  fs::remove(folder_ + "/other.json");
  EXPECT_THAT(open_error(std::string(kTwo)), HasSubstr("other.json"));
}

TEST_F(VariantsTest, AVariantOfAnotherModelIsRefused) {
  fs::remove_all(folder_ + "/other");
  fs::copy(std::string(PUNA_GOLDEN_DIR) + "/tiny_llama_hf_tied", folder_ + "/other",
           fs::copy_options::recursive);
  std::ifstream file(folder_ + "/other/config.json");
  std::stringstream read;
  read << file.rdbuf();
  std::string text = read.str();
  const size_t at = text.find("\"rope_theta\"");
  ASSERT_NE(at, std::string::npos) << text;
  text.insert(text.find_first_of("0123456789", at), "1");
  write("other/config.json", text);
  write_certificate(certificate());
  EXPECT_THAT(open_error(std::string(kTwo)),
              AllOf(HasSubstr("models.toml:7: "), HasSubstr("no form of the base")));
}

TEST_F(VariantsTest, AVariantOfAnotherVocabularyIsRefused) {
  std::ifstream file(folder_ + "/other/tokenizer.json");
  std::stringstream read;
  read << file.rdbuf();
  std::string text = read.str();
  const std::string token = "<|python_tag|>";
  const size_t at = text.find(token);
  ASSERT_NE(at, std::string::npos);
  for (size_t next = at; next != std::string::npos; next = text.find(token, next)) {
    text.replace(next, token.size(), "<|python_tig|>");
  }
  write("other/tokenizer.json", text);
  write_certificate(certificate());
  EXPECT_THAT(open_error(std::string(kTwo)),
              AllOf(HasSubstr("models.toml:7: "), HasSubstr("another vocabulary than the base")));
}

TEST_F(VariantsTest, AllAreLoadedUnderOneBudget) {
  write_certificate(certificate());
  ServeFlags parsed = flags(std::string(kTwo));
  parsed.model.memory_budget = "192MiB";
  LoadSize size = load_size(parsed);
  const auto loaded = LoadedVariants::load(*parsed.variants, parsed.model, size);
  ASSERT_TRUE(loaded.ok()) << loaded.error().message();
  ASSERT_EQ(loaded->engines().size(), 2U);
  uint64_t total = 0;
  for (const plan::MemoryPlan& plan : loaded->plans()) total += plan.total();
  EXPECT_LE(total, uint64_t{192} << 20);
  EXPECT_EQ(loaded->plans()[1].kv_type, kernels::KvType::kInt8);
  EXPECT_THAT(loaded->memory_table(), HasSubstr("small: memory plan:"));
  EXPECT_THAT(loaded->summaries()[1], HasSubstr("certified for edit"));
  for (engine::Engine* engine : loaded->engines()) engine->start();
  for (engine::Engine* engine : loaded->engines()) {
    engine::Request request;
    request.prompt = {1, 2, 3};
    request.stop.max_tokens = 5;
    auto submission = engine->submit({request}, nullptr);
    ASSERT_TRUE(submission.ok());
    ASSERT_FALSE(submission->refusal);
    EXPECT_TRUE(engine->drain(20 * kNsPerSecond));
  }
}

TEST_F(VariantsTest, ExplainSaysWhy) {
  write_certificate(certificate());
  const std::string path = config(std::string(kTwo));
  const std::string request = write(
      "request.json",
      R"({"messages":[{"role":"user","content":"Proofread this paragraph: helo"}],"tools":[]})");
  const auto explain = [&](std::vector<const char*> more) {
    std::vector<const char*> arguments = {"route",     "explain",       "--config", path.c_str(),
                                          "--request", request.c_str(), "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const auto command = parse(arguments);
    EXPECT_TRUE(command.ok()) << command.error().message();
    ::testing::internal::CaptureStdout();
    const Result<int> code = route_explain(std::get<RouteFlags>(*command));
    EXPECT_TRUE(code.ok()) << code.error().message();
    return ::testing::internal::GetCapturedStdout();
  };
  EXPECT_THAT(explain({}),
              AllOf(HasSubstr(R"("family":"edit")"), HasSubstr(R"("variant":"small")"),
                    HasSubstr(R"("order":["small","full"])"), HasSubstr("words \\\"proofread\\\""),
                    HasSubstr(R"("refusal":null)")));
  EXPECT_THAT(explain({"--task", "code"}),
              AllOf(HasSubstr(R"("source":"header")"), HasSubstr(R"("variant":"full")"),
                    HasSubstr(R"("verdict":"refuse")")));
  write("request.json", R"({"messages":[{"role":"user","content":"x"}],)"
                        R"("tools":[{"type":"function"}]})");
  EXPECT_THAT(explain({}),
              AllOf(HasSubstr(R"("family":"tool_call")"), HasSubstr("`tools` is not supported")));
}

}  // namespace
}  // namespace puna::cli
