// SPDX-License-Identifier: Apache-2.0
#include "formats/gguf.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "formats/gguf_parser.h"
#include "formats/test_files.h"

namespace puna::formats {
namespace {

// A GGUF file put together by hand, so that each part can be wrong.
struct HandMadeGguf {
  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t tensor_count = 0;
  uint64_t pair_count = 0;
  std::string pairs = {};
  std::string infos = {};
  std::string data = {};

  static std::string text(std::string_view value) {
    return raw<uint64_t>(value.size()) + std::string(value);
  }

  HandMadeGguf& pair(std::string_view key, uint32_t type, const std::string& value) {
    ++pair_count;
    pairs += text(key) + raw(type) + value;
    return *this;
  }
  HandMadeGguf& tensor(std::string_view name, std::vector<uint64_t> dims, uint32_t type,
                       uint64_t offset) {
    ++tensor_count;
    infos += text(name) + raw(static_cast<uint32_t>(dims.size()));
    for (const uint64_t dim : dims) infos += raw(dim);
    infos += raw(type) + raw(offset);
    return *this;
  }
  std::string bytes() const {
    std::string out = magic + raw(version) + raw(tensor_count) + raw(pair_count) + pairs + infos;
    if (!data.empty()) out.resize((out.size() + 31) / 32 * 32);
    return out + data;
  }
};

Result<GgufFile> parse(const std::string& bytes) {
  return GgufFile::parse(bytes_of(bytes), "model.gguf");
}
// For results that outlive a temporary string, only the error may be looked at.
Result<GgufFile> parse(const HandMadeGguf& file) { return parse(file.bytes()); }

constexpr uint32_t kF32 = 0;
constexpr uint32_t kQ8 = 8;
constexpr uint32_t kU32Value = 4;
constexpr uint32_t kBoolValue = 7;
constexpr uint32_t kStringValue = 8;
constexpr uint32_t kArrayValue = 9;

TEST(Gguf, ReadsEveryValueType) {
  auto opened = GgufFile::open(golden("formats/all_values.gguf"));
  ASSERT_TRUE(opened.ok()) << opened.error().message();
  const GgufFile& file = *opened;
  EXPECT_EQ(file.alignment(), 64U);
  EXPECT_EQ(file.get_u64("test.u8"), 200U);
  EXPECT_EQ(file.get_i64("test.i8"), -100);
  EXPECT_EQ(file.get_u64("test.u16"), 60000U);
  EXPECT_EQ(file.get_i64("test.i16"), -30000);
  EXPECT_EQ(file.get_u64("test.u32"), 4000000000U);
  EXPECT_EQ(file.get_i64("test.i32"), -2000000000);
  EXPECT_EQ(file.get_u64("test.u64"), (1ULL << 63) + 1);
  EXPECT_EQ(file.get_i64("test.i64"), -(1LL << 62));
  EXPECT_EQ(file.get_f64("test.f32"), static_cast<double>(0.1F));
  EXPECT_EQ(file.get_f64("test.f64"), 0.1);
  EXPECT_EQ(file.get_bool("test.bool"), true);
  EXPECT_EQ(file.get_string("test.string"), "Grüße, 世界");
  const GgufArray* strings = file.get_array("test.strings");
  ASSERT_NE(strings, nullptr);
  ASSERT_EQ(strings->values.size(), 3U);
  EXPECT_EQ(std::get<std::string_view>(strings->values[2]), "three");
  const GgufArray* nested = file.get_array("test.nested");
  ASSERT_NE(nested, nullptr);
  ASSERT_EQ(nested->nested.size(), 2U);
  EXPECT_EQ(std::get<int64_t>(nested->nested[1].values[0]), 3);
}

TEST(Gguf, GettersRefuseOtherTypes) {
  auto opened = GgufFile::open(golden("formats/all_values.gguf"));
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ(opened->get_u64("test.i8"), std::nullopt);   // negative
  EXPECT_EQ(opened->get_i64("test.u64"), std::nullopt);  // too large
  EXPECT_EQ(opened->get_i64("test.u8"), 200);
  EXPECT_EQ(opened->get_f64("test.u8"), 200.0);
  EXPECT_EQ(opened->get_u64("test.string"), std::nullopt);
  EXPECT_EQ(opened->get_string("test.u8"), std::nullopt);
  EXPECT_EQ(opened->get_bool("test.u8"), std::nullopt);
  EXPECT_EQ(opened->get_array("test.u8"), nullptr);
  EXPECT_EQ(opened->get_u64("no.such.key"), std::nullopt);
}

TEST(Gguf, ReadsTensors) {
  auto opened = GgufFile::open(golden("formats/all_values.gguf"));
  ASSERT_TRUE(opened.ok());
  ASSERT_EQ(opened->tensors().size(), 3U);
  const GgufTensor* a = opened->find_tensor("a.weight");
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(a->type, TensorType::kF32);
  EXPECT_EQ(a->dims, (std::vector<uint64_t>{32, 3}));
  ASSERT_EQ(a->data.size(), 96 * sizeof(float));
  float last = 0;
  std::memcpy(&last, a->data.data() + 95 * sizeof(float), sizeof(float));
  EXPECT_EQ(last, 95.0F);
  EXPECT_EQ(opened->find_tensor("c.weight")->type, TensorType::kQ8_0);
  EXPECT_EQ(opened->find_tensor("d.weight"), nullptr);
}

TEST(Gguf, JoinsShards) {
  auto opened = GgufFile::open(golden("formats/split-00001-of-00003.gguf"));
  ASSERT_TRUE(opened.ok()) << opened.error().message();
  EXPECT_EQ(opened->shards().size(), 3U);
  ASSERT_EQ(opened->tensors().size(), 5U);
  EXPECT_EQ(opened->get_string("general.name"), "split");
  for (int i = 0; i < 5; ++i) {
    const GgufTensor* tensor = opened->find_tensor("t" + std::to_string(i));
    ASSERT_NE(tensor, nullptr);
    EXPECT_EQ(tensor->shard, static_cast<size_t>(i / 2));
    float first = -1;
    std::memcpy(&first, tensor->data.data(), sizeof(first));
    EXPECT_EQ(first, static_cast<float>(i));
  }
}

class Shards : public testing::Test {
 protected:
  Shards() {
    for (int i = 1; i <= 3; ++i)
      std::filesystem::copy(golden("formats/" + name(i)), folder_ / name(i));
  }
  static std::string name(int i) { return "split-0000" + std::to_string(i) + "-of-00003.gguf"; }
  ScratchFolder folder_;
};

TEST_F(Shards, AllMustBeThere) {
  std::filesystem::remove(folder_ / name(3));
  EXPECT_REFUSED(GgufFile::open(folder_ / name(1)), ErrorCode::kNotFound, name(3));
}

TEST_F(Shards, TheFirstOneIsTheModel) {
  EXPECT_REFUSED(GgufFile::open(folder_ / name(2)), ErrorCode::kInvalidArgument, "shard 2 of 3");
}

TEST_F(Shards, NamesTellTheOrder) {
  std::filesystem::rename(folder_ / name(1), folder_ / "model.gguf");
  EXPECT_REFUSED(GgufFile::open(folder_ / "model.gguf"), ErrorCode::kInvalidArgument,
                 "-00001-of-00003.gguf");
}

TEST_F(Shards, ACycleIsRefused) {  // shard 2 is a link to shard 1
  std::filesystem::remove(folder_ / name(2));
  std::filesystem::create_symlink(folder_ / name(1), folder_ / name(2));
  EXPECT_REFUSED(GgufFile::open(folder_ / name(1)), ErrorCode::kCorrupt, "split.no");
}

TEST_F(Shards, ALinkToItselfIsRefused) {
  std::filesystem::create_symlink(folder_ / "loop.gguf", folder_ / "loop.gguf");
  EXPECT_REFUSED(GgufFile::open(folder_ / "loop.gguf"), ErrorCode::kIo, "loop.gguf");
}

TEST_F(Shards, ATruncatedOneIsRefused) {
  std::filesystem::resize_file(folder_ / name(3),
                               std::filesystem::file_size(folder_ / name(3)) - 32);
  EXPECT_REFUSED(GgufFile::open(folder_ / name(1)), ErrorCode::kCorrupt, name(3));
}

TEST_F(Shards, ATensorInTwoIsRefused) {
  std::string text = read_text(folder_ / name(3));
  const size_t at = text.find("t4");
  ASSERT_NE(at, std::string::npos);
  text[at + 1] = '0';
  write_text(folder_ / name(3), text);
  EXPECT_REFUSED(GgufFile::open(folder_ / name(1)), ErrorCode::kCorrupt,
                 "\"t0\" is in an earlier shard");
}

TEST(GgufRefuses, EveryPrefix) {
  const std::string whole = read_text(golden("formats/all_values.gguf"));
  const std::string split = read_text(golden("formats/split-00001-of-00003.gguf"));
  ASSERT_TRUE(parse(split).ok());
  for (size_t length = 0; length < split.size(); ++length) {
    const std::string prefix =
        split.substr(0, length);  // its own allocation, so ASan sees an overrun
    ASSERT_FALSE(parse(prefix).ok()) << length << " bytes";
  }
  const size_t data_end = whole.size() - (128 - 2 * 34);  // c.weight takes 68 bytes of its 128
  for (size_t length = 0; length < data_end; ++length) {
    const std::string prefix = whole.substr(0, length);
    ASSERT_FALSE(parse(prefix).ok()) << length << " bytes";
  }
}

TEST(GgufRefuses, OtherFiles) {
  EXPECT_REFUSED(parse(std::string()), ErrorCode::kCorrupt, "empty");
  EXPECT_REFUSED(parse(std::string("PK\x03\x04 and so on")), ErrorCode::kUnsupported,
                 "not a GGUF file");
  EXPECT_REFUSED(parse(HandMadeGguf{.version = 1}), ErrorCode::kUnsupported, "GGUF version 1");
  EXPECT_REFUSED(parse(HandMadeGguf{.version = 4}), ErrorCode::kUnsupported, "GGUF version 4");
  EXPECT_REFUSED(parse(HandMadeGguf{.version = 0x03000000}), ErrorCode::kUnsupported, "big-endian");
  EXPECT_REFUSED(GgufFile::open("/no/such/model.gguf"), ErrorCode::kNotFound,
                 "/no/such/model.gguf");
  EXPECT_REFUSED(GgufFile::open("/tmp"), ErrorCode::kIo, "not a regular file");
}

TEST(GgufRefuses, CountsBeyondTheFile) {
  EXPECT_REFUSED(parse(HandMadeGguf{.pair_count = 1ULL << 60}), ErrorCode::kCorrupt,
                 "keys in 0 bytes");
  EXPECT_REFUSED(parse(HandMadeGguf{.tensor_count = 1ULL << 60}), ErrorCode::kCorrupt,
                 "tensors in 0 bytes");
  HandMadeGguf long_string;
  long_string.pair("k", kStringValue, raw<uint64_t>(UINT64_MAX));
  EXPECT_REFUSED(parse(long_string), ErrorCode::kCorrupt, "claims 18446744073709551615 bytes");
  HandMadeGguf long_array;
  long_array.pair("k", kArrayValue, raw(kStringValue) + raw<uint64_t>(UINT64_MAX));
  EXPECT_REFUSED(parse(long_array), ErrorCode::kCorrupt, "elements");
  HandMadeGguf many;  // real bytes, but more elements than any vocabulary has
  many.pair("k", kArrayValue,
            raw(kBoolValue) + raw<uint64_t>(kMaxGgufArrayElements + 1) +
                std::string(kMaxGgufArrayElements + 1, '\0'));
  EXPECT_REFUSED(parse(many), ErrorCode::kUnsupported, "metadata arrays");
}

TEST(GgufRefuses, BadMetadata) {
  EXPECT_REFUSED(parse(HandMadeGguf().pair("k", 13, "x")), ErrorCode::kCorrupt, "value type 13");
  EXPECT_REFUSED(parse(HandMadeGguf().pair("k", kBoolValue, "\x02")), ErrorCode::kCorrupt,
                 "bool 2");
  EXPECT_REFUSED(parse(HandMadeGguf().pair("", kBoolValue, "\x01")), ErrorCode::kCorrupt, "empty");
  EXPECT_REFUSED(parse(HandMadeGguf().pair("k", kBoolValue, "\x01").pair("k", kBoolValue, "\x01")),
                 ErrorCode::kCorrupt, "\"k\" appears twice");
  EXPECT_REFUSED(parse(HandMadeGguf().pair(std::string(70000, 'k'), kBoolValue, "\x01")),
                 ErrorCode::kCorrupt, "limit is 65535");
  EXPECT_REFUSED(parse(HandMadeGguf().pair("a\nb", 13, "x")), ErrorCode::kCorrupt, "\"a\\x0ab\"");
  for (const uint32_t alignment : {0U, 1U, 4U, 48U, 1U << 21}) {
    EXPECT_REFUSED(parse(HandMadeGguf().pair("general.alignment", kU32Value, raw(alignment))),
                   ErrorCode::kCorrupt, "general.alignment");
  }
}

TEST(GgufRefuses, DeepNesting) {
  std::string value;
  for (int depth = 0; depth < 1000; ++depth) value += raw(kArrayValue) + raw<uint64_t>(1);
  EXPECT_REFUSED(parse(HandMadeGguf().pair("k", kArrayValue, value)), ErrorCode::kCorrupt, "nests");
}

TEST(GgufRefuses, BadTensorShapes) {
  EXPECT_REFUSED(parse(HandMadeGguf().tensor("t", {}, kF32, 0)), ErrorCode::kCorrupt,
                 "claims 1 tensors");
  HandMadeGguf no_dims;
  no_dims.tensor("t", {}, kF32, 0).data = std::string(64, '\0');
  EXPECT_REFUSED(parse(no_dims), ErrorCode::kCorrupt, "0 dimensions");
  EXPECT_REFUSED(parse(HandMadeGguf().tensor("t", {1, 1, 1, 1, 1}, kF32, 0)), ErrorCode::kCorrupt,
                 "5 dimensions");
  EXPECT_REFUSED(parse(HandMadeGguf().tensor("t", {32, 0}, kF32, 0)), ErrorCode::kCorrupt,
                 "dimension of 0");
  EXPECT_REFUSED(parse(HandMadeGguf().tensor("t", {1ULL << 40, 1ULL << 40}, kF32, 0)),
                 ErrorCode::kCorrupt, "overflows");
  EXPECT_REFUSED(parse(HandMadeGguf().tensor("t", {1ULL << 63}, kF32, 0)), ErrorCode::kCorrupt,
                 "overflows");
  EXPECT_REFUSED(parse(HandMadeGguf().tensor("t", {1ULL << 62}, kF32, 0)), ErrorCode::kCorrupt,
                 "overflows");
  EXPECT_REFUSED(parse(HandMadeGguf().tensor("t", {33}, kQ8, 0)), ErrorCode::kCorrupt,
                 "no multiple of 32");
  EXPECT_REFUSED(parse(HandMadeGguf().tensor("", {32, 1}, kQ8, 0)), ErrorCode::kCorrupt,
                 "empty name");
  EXPECT_REFUSED(parse(HandMadeGguf().tensor(std::string(65, 'n'), {32}, kQ8, 0)),
                 ErrorCode::kCorrupt, "limit is 64");
}

TEST(GgufRefuses, UnsupportedTensorTypes) {
  EXPECT_REFUSED(parse(HandMadeGguf().tensor("t", {256}, 16, 0)), ErrorCode::kUnsupported,
                 "16 (IQ2_XXS)");
  EXPECT_REFUSED(parse(HandMadeGguf().tensor("t", {256}, 4, 0)), ErrorCode::kUnsupported,
                 "4 (unknown)");
}

TEST(GgufRefuses, BadPlacement) {
  HandMadeGguf file;
  file.tensor("a", {8}, kF32, 0).tensor("b", {8}, kF32, 32).data = std::string(64, '\0');
  EXPECT_TRUE(parse(file).ok());
  HandMadeGguf overlapping;
  overlapping.tensor("a", {16}, kF32, 0).tensor("b", {8}, kF32, 32).data = std::string(64, '\0');
  EXPECT_REFUSED(parse(overlapping), ErrorCode::kCorrupt, "\"a\" and \"b\" overlap");
  HandMadeGguf same;
  same.tensor("a", {8}, kF32, 32).tensor("b", {8}, kF32, 32).data = std::string(64, '\0');
  EXPECT_REFUSED(parse(same), ErrorCode::kCorrupt, "overlap");
  HandMadeGguf beyond;
  beyond.tensor("a", {8}, kF32, 64).data = std::string(64, '\0');
  EXPECT_REFUSED(parse(beyond), ErrorCode::kCorrupt, "needs 32 bytes at offset 64");
  HandMadeGguf wrapping;
  wrapping.tensor("a", {8}, kF32, UINT64_MAX - 31).data = std::string(64, '\0');
  EXPECT_REFUSED(parse(wrapping), ErrorCode::kCorrupt, "needs 32 bytes at offset");
  HandMadeGguf unaligned;
  unaligned.tensor("a", {8}, kF32, 8).data = std::string(64, '\0');
  EXPECT_REFUSED(parse(unaligned), ErrorCode::kCorrupt, "no multiple of 32");
  HandMadeGguf twice;
  twice.tensor("a", {8}, kF32, 0).tensor("a", {8}, kF32, 32).data = std::string(64, '\0');
  EXPECT_REFUSED(parse(twice), ErrorCode::kCorrupt, "appears twice");
}

TEST(TensorTypes, SizesAndNames) {
  EXPECT_EQ(tensor_bytes(TensorType::kQ4_K, 512), 288U);
  EXPECT_EQ(tensor_bytes(TensorType::kF32, 1ULL << 62), std::nullopt);
  EXPECT_EQ(tensor_type_name(TensorType::kIQ4_XS), "IQ4_XS");
  EXPECT_EQ(find_tensor_type(4), nullptr);
  EXPECT_EQ(find_tensor_type(30)->type, TensorType::kBF16);
}

}  // namespace
}  // namespace puna::formats
