// SPDX-License-Identifier: Apache-2.0
#include "formats/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <string>

#include "formats/test_files.h"

namespace puna::formats {
namespace {

std::string file_of(std::string_view header, size_t data_bytes) {
  return raw<uint64_t>(header.size()) + std::string(header) + std::string(data_bytes, '\0');
}

Result<SafetensorsFile> parse_safetensors(const std::string& bytes) {
  return SafetensorsFile::parse(bytes_of(bytes), "model.safetensors");
}
Result<SafetensorsFile> parse_safetensors(std::string_view header, size_t data_bytes) {
  return parse_safetensors(file_of(header, data_bytes));
}

TEST(Safetensors, ReadsWhatTheirLibraryWrites) {
  auto file = SafetensorsFile::open(golden("formats/mixed.safetensors"));
  ASSERT_TRUE(file.ok()) << file.error().message();
  EXPECT_EQ(file->tensors().size(), 5U);
  const SafetensorsTensor* f32 = file->find("f32");
  ASSERT_NE(f32, nullptr);
  EXPECT_EQ(f32->dtype, SafetensorsDtype::kF32);
  EXPECT_EQ(f32->dims, (std::vector<uint64_t>{2, 3}));
  float last = 0;
  std::memcpy(&last, f32->data.data() + 5 * sizeof(float), sizeof(last));
  EXPECT_EQ(last, 5.0F);
  EXPECT_EQ(file->find("f16")->dtype, SafetensorsDtype::kF16);
  EXPECT_EQ(file->find("bf16")->dtype, SafetensorsDtype::kBF16);
  EXPECT_EQ(file->find("bf16")->data.size(), 6U);
  EXPECT_TRUE(file->find("scalar")->dims.empty());
  EXPECT_TRUE(file->find("empty")->data.empty());
  EXPECT_EQ(file->find("other"), nullptr);
}

TEST(SafetensorsRefuses, EveryPrefix) {
  const std::string whole = read_text(golden("formats/mixed.safetensors"));
  ASSERT_TRUE(parse_safetensors(whole).ok());
  for (size_t length = 0; length < whole.size(); ++length) {
    const std::string prefix =
        whole.substr(0, length);  // its own allocation, so ASan sees an overrun
    ASSERT_FALSE(parse_safetensors(prefix).ok()) << length << " bytes";
  }
  EXPECT_REFUSED(parse_safetensors(whole + "x"), ErrorCode::kCorrupt,
                 "1 bytes after the last tensor");
}

TEST(SafetensorsRefuses, BadHeaders) {
  EXPECT_REFUSED(parse_safetensors(std::string()), ErrorCode::kCorrupt, "empty");
  EXPECT_REFUSED(parse_safetensors(raw<uint64_t>(UINT64_MAX)), ErrorCode::kCorrupt,
                 "claims 18446744073709551615");
  EXPECT_REFUSED(parse_safetensors("{", 0), ErrorCode::kCorrupt, "invalid JSON");
  EXPECT_REFUSED(parse_safetensors("[]", 0), ErrorCode::kCorrupt, "no object");
  EXPECT_REFUSED(parse_safetensors("{} x", 0), ErrorCode::kCorrupt, "invalid JSON");
  EXPECT_REFUSED(parse_safetensors("{\"a\":" + std::string(100000, '['), 0), ErrorCode::kCorrupt,
                 "invalid JSON");
}

TEST(SafetensorsRefuses, BadTensors) {
  EXPECT_REFUSED(parse_safetensors(R"({"a":3})", 0), ErrorCode::kCorrupt, "no object");
  EXPECT_REFUSED(parse_safetensors(R"({"a":{}})", 0), ErrorCode::kCorrupt, "no dtype");
  EXPECT_REFUSED(parse_safetensors(R"({"a":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}})", 8),
                 ErrorCode::kUnsupported, "dtype \"C64\"");
  EXPECT_REFUSED(parse_safetensors(R"({"a":{"dtype":"F32","data_offsets":[0,8]}})", 8),
                 ErrorCode::kCorrupt, "no shape");
  EXPECT_REFUSED(parse_safetensors(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,8]}})", 8),
                 ErrorCode::kCorrupt, "no list of sizes");
  EXPECT_REFUSED(
      parse_safetensors(R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,8]}})", 8),
      ErrorCode::kCorrupt, "no list of sizes");
  EXPECT_REFUSED(
      parse_safetensors(
          R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}})", 8),
      ErrorCode::kCorrupt, "no list of sizes");
  EXPECT_REFUSED(
      parse_safetensors(
          R"({"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})", 0),
      ErrorCode::kCorrupt, "contradicts its shape");
  EXPECT_REFUSED(
      parse_safetensors(R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}})",
                        4),
      ErrorCode::kCorrupt, "up to 8 dimensions");
}

TEST(SafetensorsRefuses, BadOffsets) {
  EXPECT_REFUSED(parse_safetensors(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", 8),
                 ErrorCode::kCorrupt, "data_offsets");
  EXPECT_REFUSED(parse_safetensors(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8),
                 ErrorCode::kCorrupt, "data_offsets");
  EXPECT_REFUSED(parse_safetensors(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 8),
                 ErrorCode::kCorrupt, "data_offsets");
  EXPECT_REFUSED(parse_safetensors(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4),
                 ErrorCode::kCorrupt, "contradicts its shape");
  EXPECT_REFUSED(parse_safetensors(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                                   R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
                                   12),
                 ErrorCode::kCorrupt, "overlaps");
  EXPECT_REFUSED(parse_safetensors(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8),
                 ErrorCode::kCorrupt, "4 bytes before tensor");
  // The same name twice: what the first entry points to belongs to nobody.
  EXPECT_REFUSED(parse_safetensors(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                                   R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                                   8),
                 ErrorCode::kCorrupt, "belong to no");
}

class Folder : public testing::Test {
 protected:
  void copy_files() {
    for (const auto& entry : std::filesystem::directory_iterator(golden("tiny_llama_hf"))) {
      std::filesystem::copy(entry.path(), folder_ / entry.path().filename().string());
    }
  }
  void write_index(std::string_view text) {
    write_text(folder_ / "model.safetensors.index.json", text);
  }
  Result<SafetensorsFolder> open() { return SafetensorsFolder::open(folder_.path()); }
  ScratchFolder folder_;
};

TEST_F(Folder, FollowsTheIndex) {
  copy_files();
  auto model = open();
  ASSERT_TRUE(model.ok()) << model.error().message();
  EXPECT_EQ(model->files().size(), 3U);
  EXPECT_EQ(model->tensors().size(), 3U + 2 * 9);
  ASSERT_NE(model->find("lm_head.weight"), nullptr);
  EXPECT_EQ(model->find("lm_head.weight")->dims, (std::vector<uint64_t>{512, 64}));
}

TEST_F(Folder, OneFileNeedsNoIndex) {
  auto model = SafetensorsFolder::open(golden("tiny_llama_hf_tied"));
  ASSERT_TRUE(model.ok()) << model.error().message();
  EXPECT_EQ(model->files().size(), 1U);
  EXPECT_EQ(model->find("lm_head.weight"), nullptr);
}

TEST_F(Folder, BadIndexesAreRefused) {
  EXPECT_REFUSED(open(), ErrorCode::kNotFound, "neither model.safetensors nor");
  write_index("{");
  EXPECT_REFUSED(open(), ErrorCode::kCorrupt, "invalid JSON");
  write_index("{}");
  EXPECT_REFUSED(open(), ErrorCode::kCorrupt, "weight_map");
  write_index(R"({"weight_map":{"a":"missing.safetensors"}})");
  EXPECT_REFUSED(open(), ErrorCode::kNotFound, "missing.safetensors");
  write_index(R"({"weight_map":{"a":"model.safetensors.index.json"}})");  // the index names itself
  EXPECT_REFUSED(open(), ErrorCode::kCorrupt, "its header claims");
}

TEST_F(Folder, TheIndexReachesNoOtherFolder) {
  for (const char* name : {"../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", ".", "",
                           "a\\\\b.safetensors", "a\\u0000b"}) {
    write_index(std::string(R"({"weight_map":{"a":")") + name + R"("}})");
    EXPECT_REFUSED(open(), ErrorCode::kCorrupt, "no plain file name");
  }
  write_index(R"({"weight_map":{"a":3}})");
  EXPECT_REFUSED(open(), ErrorCode::kCorrupt, "no plain file name");
}

TEST_F(Folder, ATensorMustBeWhereTheIndexSays) {
  copy_files();
  write_index(R"({"weight_map":{"no.such.tensor":"model-00001-of-00003.safetensors"}})");
  EXPECT_REFUSED(open(), ErrorCode::kCorrupt, "\"no.such.tensor\" is not in model-00001");
}

}  // namespace
}  // namespace puna::formats
