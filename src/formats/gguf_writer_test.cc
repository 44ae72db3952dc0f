// SPDX-License-Identifier: Apache-2.0
#include "formats/gguf_writer.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "formats/test_files.h"

namespace puna::formats {
namespace {

// Metadata and tensors of `file` once more through a writer.
Result<> copy(const GgufFile& file, GgufWriter& writer, std::vector<std::string_view> key_order) {
  for (const std::string_view key : key_order) RETURN_IF_ERROR(writer.set(key, *file.find(key)));
  for (const GgufTensor& tensor : file.tensors()) {
    RETURN_IF_ERROR(writer.add_tensor(tensor.name, tensor.type, tensor.dims));
  }
  RETURN_IF_ERROR(writer.begin());
  for (const GgufTensor& tensor : file.tensors()) RETURN_IF_ERROR(writer.write(tensor.data));
  return writer.finish();
}

TEST(GgufWriter, WritesTheBytesThatGgufPyWrites) {
  auto file = GgufFile::open(golden("formats/all_values.gguf"));
  ASSERT_TRUE(file.ok());
  ScratchFolder folder;
  GgufWriter writer(folder / "copy.gguf", {.alignment = 64});
  ASSERT_TRUE(
      copy(*file, writer,
           {"general.architecture", "test.u8", "test.i8", "test.u16", "test.i16", "test.u32",
            "test.i32", "test.u64", "test.i64", "test.f32", "test.f64", "test.bool", "test.string",
            "test.strings", "test.ints", "test.floats", "test.bools", "test.nested"})
          .ok());
  EXPECT_EQ(read_text(folder / "copy.gguf"), read_text(golden("formats/all_values.gguf")));
}

TEST(GgufWriter, WritesTheShardsThatGgufPyWrites) {
  auto file = GgufFile::open(golden("formats/split-00001-of-00003.gguf"));
  ASSERT_TRUE(file.ok());
  ScratchFolder folder;
  GgufWriter writer(folder / "split.gguf", {.max_shard_bytes = 64});
  ASSERT_TRUE(copy(*file, writer, {"general.architecture", "general.name"}).ok());
  ASSERT_EQ(writer.paths().size(), 3U);
  for (int i = 1; i <= 3; ++i) {
    const std::string name = "split-0000" + std::to_string(i) + "-of-00003.gguf";
    EXPECT_EQ(writer.paths()[static_cast<size_t>(i - 1)], folder / name);
    EXPECT_EQ(read_text(folder / name), read_text(golden("formats/" + name))) << name;
  }
}

TEST(GgufWriter, TypedSettersReadBack) {
  ScratchFolder folder;
  GgufWriter writer(folder / "m.gguf", {});
  ASSERT_TRUE(writer.set("u8", uint8_t{255}).ok());
  ASSERT_TRUE(writer.set("i16", int16_t{-2}).ok());
  ASSERT_TRUE(writer.set("u64", UINT64_MAX).ok());
  ASSERT_TRUE(writer.set("f32", 0.5F).ok());
  ASSERT_TRUE(writer.set("f64", 1e300).ok());
  ASSERT_TRUE(writer.set("bool", true).ok());
  ASSERT_TRUE(writer.set("text", "hello").ok());
  const std::vector<int32_t> numbers{1, -1};
  ASSERT_TRUE(writer.set_array("numbers", std::span<const int32_t>(numbers)).ok());
  const std::vector<std::string_view> words{"a", "", "bc"};
  ASSERT_TRUE(writer.set_array("words", std::span<const std::string_view>(words)).ok());
  ASSERT_TRUE(writer.begin().ok());
  ASSERT_TRUE(writer.finish().ok());
  auto file = GgufFile::open(folder / "m.gguf");
  ASSERT_TRUE(file.ok()) << file.error().message();
  EXPECT_EQ(file->find("u8")->type, GgufValueType::kU8);
  EXPECT_EQ(file->get_u64("u8"), 255U);
  EXPECT_EQ(file->get_i64("i16"), -2);
  EXPECT_EQ(file->get_u64("u64"), UINT64_MAX);
  EXPECT_EQ(file->find("f32")->type, GgufValueType::kF32);
  EXPECT_EQ(file->get_f64("f64"), 1e300);
  EXPECT_EQ(file->get_bool("bool"), true);
  EXPECT_EQ(file->get_string("text"), "hello");
  EXPECT_EQ(std::get<int64_t>(file->get_array("numbers")->values[1]), -1);
  EXPECT_EQ(std::get<std::string_view>(file->get_array("words")->values[2]), "bc");
}

TEST(GgufWriter, PiecesMayCrossTensorsAndShards) {
  const std::string data = [] {
    std::string bytes;
    for (int i = 0; i < 3 * 40; ++i) bytes += static_cast<char>(i);
    return bytes;
  }();
  for (const size_t piece : {size_t{1}, size_t{7}, size_t{50}, data.size()}) {
    ScratchFolder folder;
    GgufWriter writer(folder / "m.gguf", {.alignment = 8, .max_shard_bytes = 80});
    for (const char* name : {"a", "b", "c"})
      ASSERT_TRUE(writer.add_tensor(name, TensorType::kF32, {10}).ok());
    ASSERT_TRUE(writer.begin().ok());
    for (size_t at = 0; at < data.size(); at += piece) {
      ASSERT_TRUE(writer.write(bytes_of(std::string_view(data).substr(at, piece))).ok());
    }
    ASSERT_TRUE(writer.finish().ok());
    auto file = GgufFile::open(folder / "m-00001-of-00002.gguf");
    ASSERT_TRUE(file.ok()) << file.error().message();
    std::string read;
    for (const GgufTensor& tensor : file->tensors()) {
      read.append(reinterpret_cast<const char*>(tensor.data.data()), tensor.data.size());
    }
    EXPECT_EQ(read, data);
    EXPECT_EQ(file->find_tensor("c")->shard, 1U);
  }
}

TEST(GgufWriter, NothingStandsBeforeFinish) {
  ScratchFolder folder;
  {
    GgufWriter writer(folder / "m.gguf", {});
    ASSERT_TRUE(writer.add_tensor("a", TensorType::kF32, {8}).ok());
    ASSERT_TRUE(writer.begin().ok());
    EXPECT_FALSE(std::filesystem::exists(folder / "m.gguf"));
    EXPECT_REFUSED(writer.finish(), ErrorCode::kInvalidArgument,
                   "bytes of tensor \"a\" are missing");
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(GgufWriter, RefusesWhatItCannotWrite) {
  ScratchFolder folder;
  GgufWriter writer(folder / "m.gguf", {});
  ASSERT_TRUE(writer.set("k", 1).ok());
  EXPECT_REFUSED(writer.set("k", 2), ErrorCode::kInvalidArgument, "set twice");
  EXPECT_REFUSED(writer.set("", 2), ErrorCode::kInvalidArgument, "0 bytes");
  EXPECT_REFUSED(writer.set("split.count", 2), ErrorCode::kInvalidArgument, "set by the writer");
  EXPECT_REFUSED(writer.add_tensor("q", TensorType::kQ8_0, {33}), ErrorCode::kInvalidArgument,
                 "Q8_0");
  EXPECT_REFUSED(writer.add_tensor("q", TensorType::kF32, {1ULL << 40, 1ULL << 40}),
                 ErrorCode::kInvalidArgument, "cannot hold");
  EXPECT_REFUSED(writer.add_tensor("q", TensorType::kF32, {}), ErrorCode::kInvalidArgument,
                 "0 dimensions");
  ASSERT_TRUE(writer.add_tensor("q", TensorType::kF32, {1}).ok());
  EXPECT_REFUSED(writer.add_tensor("q", TensorType::kF32, {1}), ErrorCode::kInvalidArgument,
                 "added twice");
  ASSERT_TRUE(writer.begin().ok());
  EXPECT_REFUSED(writer.write(bytes_of("12345")), ErrorCode::kInvalidArgument, "1 bytes more");
  GgufWriter nowhere(folder / "no/such/m.gguf", {});
  EXPECT_REFUSED(nowhere.begin(), ErrorCode::kIo, "no/such/m.gguf");
}

}  // namespace
}  // namespace puna::formats
