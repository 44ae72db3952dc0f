// SPDX-License-Identifier: Apache-2.0
#include "check/certificate.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "check/signing_key.h"
#include "check/weights_hash.h"

namespace puna::check {
namespace {

namespace fs = std::filesystem;

// A folder that goes with the test.
class Scratch {
 public:
  Scratch() {
    std::string pattern = (fs::temp_directory_path() / "puna-check-XXXXXX").string();
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    path_ = pattern;
  }
  ~Scratch() { fs::remove_all(path_); }
  std::string file(const std::string& name, std::string_view text) const {
    std::ofstream(path_ / name) << text;
    return path(name);
  }
  std::string path(const std::string& name) const { return (path_ / name).string(); }

 private:
  fs::path path_;
};

SigningKey test_key(std::string_view text = "sixteen bytes or more") {
  return SigningKey::from_text(text, "test").value();
}

Certificate example() {
  Certificate certificate;
  certificate.base = "base.gguf";
  certificate.variant = "a \"quoted\" name.gguf";
  certificate.base_hash = std::string(64, 'a');
  certificate.variant_hash = std::string(64, 'b');
  certificate.build = "0.1.0";
  certificate.kv_dtype = "bf16";
  certificate.seed = UINT64_MAX;
  certificate.delta = 0.03;
  certificate.error = 0.05;
  certificate.families.push_back({.name = "arithmetic",
                                  .version = 2,
                                  .n = 300,
                                  .accuracy_base = 200.0 / 300,
                                  .accuracy_variant = 1.0 / 3,
                                  .b = 110,
                                  .c = 10,
                                  .loss = 1.0 / 3,
                                  .interval_low = 0.29123456789,
                                  .interval_high = 0.37,
                                  .p = 1.234567890123e-15,
                                  .power = 0.8,
                                  .verdict = Verdict::kRefuse,
                                  .degraded = true,
                                  .why = "lost 33 points"});
  certificate.families.push_back({.name = "edit", .verdict = Verdict::kPass});
  return certificate;
}

TEST(Certificate, ComesBackFromItsText) {
  Certificate certificate = example();
  sign(certificate, test_key());
  const std::string text = certificate_json(certificate);
  const auto read = parse_certificate(text, "x.json");
  ASSERT_TRUE(read.ok()) << read.error().message();
  EXPECT_TRUE(verify(*read, test_key()).ok());
  EXPECT_EQ(certificate_json(*read), text);
  EXPECT_EQ(read->seed, UINT64_MAX);
  EXPECT_EQ(read->variant, certificate.variant);
  ASSERT_NE(read->family("arithmetic"), nullptr);
  EXPECT_EQ(read->family("arithmetic")->verdict, Verdict::kRefuse);
  EXPECT_TRUE(read->family("arithmetic")->degraded);
  EXPECT_TRUE(read->passes("edit"));
  EXPECT_FALSE(read->passes("arithmetic"));
  EXPECT_FALSE(read->passes("code"));
}

// Whatever byte is changed: either it is no certificate any more, or its signature is wrong.
TEST(Certificate, AnyChangedByteIsSeen) {
  Certificate certificate = example();
  sign(certificate, test_key());
  const std::string text = certificate_json(certificate);
  for (size_t i = 0; i < text.size(); ++i) {
    for (const char other : {'0', '9', 'x', '"', ' ', '\n'}) {
      if (text[i] == other) continue;
      std::string changed = text;
      changed[i] = other;
      const auto read = parse_certificate(changed, "x.json");
      EXPECT_FALSE(read.ok() && verify(*read, test_key()).ok()) << changed.substr(i, 30);
    }
    const auto cut = parse_certificate(text.substr(0, i), "x.json");
    EXPECT_FALSE(cut.ok());
  }
  EXPECT_FALSE(parse_certificate(text + " ", "x.json").ok());
}

TEST(Certificate, SaysWhatIsWrong) {
  Certificate certificate = example();
  sign(certificate, test_key());
  const auto other = verify(certificate, test_key("another key of enough bytes"));
  ASSERT_FALSE(other.ok());
  EXPECT_NE(other.error().message().find("signed with the key"), std::string::npos);
  certificate.families[0].verdict = Verdict::kPass;
  const auto changed = verify(certificate, test_key());
  ASSERT_FALSE(changed.ok());
  EXPECT_NE(changed.error().message().find("changed after it was signed"), std::string::npos);
  EXPECT_FALSE(verify(example(), test_key()).ok()) << "without a signature";
  for (const char* text : {"", "{}", "[]", "{\"format\": \"puna-check-1\"}", "{\"format\": 1}"}) {
    const auto read = parse_certificate(text, "x.json");
    ASSERT_FALSE(read.ok());
    EXPECT_TRUE(read.error().message().starts_with("x.json: not a certificate")) << text;
  }
}

TEST(SigningKey, IsMadeOnceAndForItsOwnerAlone) {
  const Scratch scratch;
  const std::string path = scratch.path("new/check.key");
  const auto made = SigningKey::load_or_create(path);
  ASSERT_TRUE(made.ok()) << made.error().message();
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0600U);
  EXPECT_EQ(SigningKey::load_or_create(path)->id(), made->id());
  EXPECT_NE(SigningKey::load_or_create(scratch.path("other.key"))->id(), made->id());
  EXPECT_EQ(made->id().size(), 16U);
  EXPECT_FALSE(SigningKey::load(scratch.file("short.key", "tiny\n")).ok());
  EXPECT_FALSE(SigningKey::load(scratch.path("none.key")).ok());
}

TEST(SigningKey, SignsAsOthersDo) {
  // python: hmac.new(b"sixteen bytes or more", b"hello", "sha256").hexdigest()
  EXPECT_EQ(test_key(" sixteen bytes or more\n").sign("hello"),
            "a8298dc2056e44ef72e0c1f2adb947225338c071619e4ade7261c83fc67f20b0");
}

TEST(WeightsHash, IsOverTheBytesOfAllFiles) {
  const Scratch scratch;
  // sha256("abc"), of FIPS 180-2
  constexpr std::string_view kAbc =
      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  EXPECT_EQ(*weights_hash(scratch.file("model.gguf", "abc")), kAbc);
  fs::create_directory(scratch.path("folder"));
  EXPECT_FALSE(weights_hash(scratch.path("folder")).ok());
  scratch.file("folder/model-00002-of-00002.safetensors", "c");
  scratch.file("folder/model-00001-of-00002.safetensors", "ab");
  scratch.file("folder/config.json", "{}");
  EXPECT_EQ(*weights_hash(scratch.path("folder")), kAbc);
  scratch.file("big-00002-of-00002.gguf", "c");
  scratch.file("big-00001-of-00003.gguf", "other");
  EXPECT_EQ(*weights_hash(scratch.file("big-00001-of-00002.gguf", "ab")), kAbc);
  EXPECT_FALSE(weights_hash(scratch.path("none.gguf")).ok());
}

}  // namespace
}  // namespace puna::check
