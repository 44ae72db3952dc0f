// SPDX-License-Identifier: Apache-2.0
// Quantised layers of Hugging Face folders decode to what
// tools/golden/make_quantized_folder_golden.py computed from their codes, bit for bit where the
// target type holds it.
#include "formats/quantized_folder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "quant/dequant.h"

namespace puna::formats {
namespace {

std::string golden(const std::string& name) {
  return std::string(PUNA_GOLDEN_DIR) + "/quantized_folder/" + name;
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

class QuantizedFolderTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/puna_folder_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void set_file(const std::string& bytes) {
    std::ofstream(folder_ + "/model.safetensors", std::ios::binary) << bytes;
  }
  SafetensorsFolder open() {
    auto files = SafetensorsFolder::open(folder_);
    EXPECT_TRUE(files.ok()) << files.error().message();
    return std::move(files).value();
  }
  static QuantSettings settings_of(const std::string& name) {
    const auto config = boost::json::parse(read_file(golden(name + ".json"))).get_object();
    auto settings = read_quant_settings(config, "config.json");
    EXPECT_TRUE(settings.ok()) << settings.error().message();
    EXPECT_TRUE(settings->has_value());
    return **settings;
  }
  // The message of the error that `name` gives after `from` became `to` in its header.
  std::string error_after(const std::string& name, const std::string& from, const std::string& to) {
    std::string bytes = read_file(golden(name + ".safetensors"));
    const size_t at = bytes.find(from);
    EXPECT_NE(at, std::string::npos);
    EXPECT_EQ(from.size(), to.size());
    bytes.replace(at, to.size(), to);
    set_file(bytes);
    const SafetensorsFolder files = open();
    QuantizedFolder quantized(files, settings_of(name), folder_);
    const auto tensor = quantized.find("m.weight");
    EXPECT_FALSE(tensor.ok());
    return tensor.ok() ? "" : tensor.error().message();
  }

  std::string folder_;
};

struct Layout {
  const char* name;
  TensorType type;
  double rounding;  // relative, at most
};
constexpr Layout kLayouts[] = {
    {"awq", TensorType::kQ8_0, 0.0},
    {"gptq_v1", TensorType::kQ8_0, 0.0},
    {"gptq_v2_desc_act", TensorType::kF16, 0x1p-11},
    {"int4", TensorType::kQ8_0, 0.0},
    {"int4_zeros", TensorType::kQ8_0, 0.0},
    {"int8", TensorType::kQ8_0, 0.0},
    {"fp8", TensorType::kBF16, 0x1p-8},
    {"modelopt_fp8", TensorType::kBF16, 0.0},  // its scale is a power of two
};

TEST_F(QuantizedFolderTest, DecodesEveryLayout) {
  for (const Layout& layout : kLayouts) {
    SCOPED_TRACE(layout.name);
    set_file(read_file(golden(std::string(layout.name) + ".safetensors")));
    const SafetensorsFolder files = open();
    QuantizedFolder quantized(files, settings_of(layout.name), folder_);
    const auto tensor = quantized.find("m.weight");
    ASSERT_TRUE(tensor.ok()) << tensor.error().message();
    EXPECT_EQ(tensor->type, layout.type);
    const SafetensorsTensor* expected = files.find("expected");
    ASSERT_EQ(tensor->dims, expected->dims);
    std::vector<float> wanted(expected->data.size() / sizeof(float));
    std::memcpy(wanted.data(), expected->data.data(), expected->data.size());
    std::vector<float> found(wanted.size());
    quant::dequantize(tensor->type, tensor->data, found);
    for (size_t i = 0; i < wanted.size(); ++i) {
      const auto value = static_cast<double>(wanted[i]);
      ASSERT_LE(std::fabs(static_cast<double>(found[i]) - value),
                layout.rounding * std::fabs(value) + (layout.rounding > 0.0 ? 1e-7 : 0.0))
          << i;
    }
    // Everything of the layer is used, so that nothing of it is called unknown.
    for (const auto& [name, part] : files.tensors()) {
      EXPECT_TRUE(name == "expected" || quantized.used().contains(name)) << name;
    }
  }
}

TEST_F(QuantizedFolderTest, DamagedLayersAreRefused) {
  EXPECT_NE(error_after("awq", "m.scales", "m.scalez").find("lacks scales"), std::string::npos);
  EXPECT_NE(error_after("awq", "[128, 3]", "[96, 4] ").find("contradict"), std::string::npos);
  EXPECT_NE(error_after("int4", "m.weight_shape", "m.weight_shope").find("weight_shape"),
            std::string::npos);
  EXPECT_NE(error_after("int8", "m.weight_scale", "m.weight_scole").find("weight_scale"),
            std::string::npos);
  EXPECT_NE(error_after("fp8", "[24, 1]", "[12, 2]").find("weight_scale"), std::string::npos);
}

TEST_F(QuantizedFolderTest, GroupsOutOfRangeAreRefused) {
  std::string bytes = read_file(golden("gptq_v2_desc_act.safetensors"));
  set_file(bytes);
  size_t at = 0;
  {
    const SafetensorsFolder files = open();
    at = static_cast<size_t>(files.find("m.g_idx")->data.data() -
                             files.files()[0].mapped().bytes().data());
  }
  bytes[at] = 4;  // there are 4 groups
  set_file(bytes);
  const SafetensorsFolder files = open();
  QuantizedFolder quantized(files, settings_of("gptq_v2_desc_act"), folder_);
  const auto tensor = quantized.find("m.weight");
  ASSERT_FALSE(tensor.ok());
  EXPECT_NE(tensor.error().message().find("g_idx"), std::string::npos);
}

TEST(QuantSettings, UnknownOnesAreRefusedByName) {
  const auto error = [](const char* text) {
    const auto config = boost::json::parse(text).get_object();
    const auto settings = read_quant_settings(config, "config.json");
    EXPECT_FALSE(settings.ok()) << text;
    return settings.ok() ? "" : settings.error().message();
  };
  EXPECT_NE(
      error(R"({"quantization_config":{"quant_method":"bitsandbytes"}})").find("bitsandbytes"),
      std::string::npos);
  EXPECT_NE(error(R"({"quantization_config":{"quant_method":"gptq","bits":3}})").find("3 bits"),
            std::string::npos);
  EXPECT_NE(error(R"({"quantization_config":{"quant_method":"awq","bits":4,"version":"gemv"}})")
                .find("gemv"),
            std::string::npos);
  EXPECT_NE(
      error(R"({"quantization_config":{"quant_method":"compressed-tensors","format":"nvfp4"}})")
          .find("nvfp4"),
      std::string::npos);
  EXPECT_NE(error(R"({"quantization_config":{"quant_method":"modelopt","quant_algo":"NVFP4"}})")
                .find("NVFP4"),
            std::string::npos);
  const auto none = read_quant_settings(boost::json::parse("{}").get_object(), "config.json");
  ASSERT_TRUE(none.ok());
  EXPECT_FALSE(none->has_value());
}

}  // namespace
}  // namespace puna::formats
