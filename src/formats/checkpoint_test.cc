// SPDX-License-Identifier: Apache-2.0
#include "formats/checkpoint.h"

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "formats/gguf_writer.h"
#include "formats/known_specs.h"
#include "formats/rope_scaling.h"
#include "formats/test_files.h"

namespace puna::formats {
namespace {

TEST(KnownSpecTest, Llama3Of8BAndItsFirstLayers) {
  const ModelSpec whole = known_spec("llama-3-8b").value();
  EXPECT_EQ(whole.num_layers, 32);
  EXPECT_EQ(whole.q_size(), 4096);
  EXPECT_EQ(whole.kv_size(), 1024);
  EXPECT_EQ(whole.vocab_size, 128256);
  EXPECT_EQ(whole.eos_token_ids, (std::vector<int32_t>{128001, 128009}));
  EXPECT_EQ(known_spec("llama-3-8b:2").value().num_layers, 2);
  EXPECT_EQ(known_spec("smollm2-135m:30").value().num_layers, 30);
  for (const char* name : {"", "llama-3-8", "llama-3-8b:", "llama-3-8b:0", "llama-3-8b:33",
                           "llama-3-8b:2x", "llama-3-8b2", "llama-9"}) {
    const auto spec = known_spec(name);
    ASSERT_FALSE(spec.ok()) << name;
    EXPECT_EQ(spec.error().code(), ErrorCode::kInvalidArgument);
  }
}

void expect_tiny_sizes(const ModelSpec& spec) {
  EXPECT_EQ(spec.architecture, "llama");
  EXPECT_EQ(spec.num_layers, 2);
  EXPECT_EQ(spec.hidden_size, 64);
  EXPECT_EQ(spec.intermediate_size, 128);
  EXPECT_EQ(spec.num_heads, 4);
  EXPECT_EQ(spec.num_kv_heads, 2);
  EXPECT_EQ(spec.head_dim, 16);
  EXPECT_EQ(spec.vocab_size, 512);
  EXPECT_EQ(spec.max_position, 2048);
  EXPECT_EQ(spec.rms_norm_eps, 1e-5F);
  EXPECT_EQ(spec.rope_theta, 500000.0);
  ASSERT_EQ(spec.rope_divisors.size(), 8U);
  EXPECT_EQ(spec.rope_divisors[0], 1.0F);
  EXPECT_NEAR(spec.rope_divisors[2], 3.5685336F, 1e-5F);
  EXPECT_NEAR(spec.rope_divisors[7], 8.0F, 1e-5F);
}

TEST(Checkpoint, OpensAGguf) {
  auto opened = Checkpoint::open(golden("tiny_llama_gguf/tiny.gguf"));
  ASSERT_TRUE(opened.ok()) << opened.error().message();
  expect_tiny_sizes(opened->spec());
  EXPECT_EQ(opened->spec().name, "Tiny Llama");
  EXPECT_EQ(opened->spec().rope_layout, RopeLayout::kInterleaved);
  EXPECT_FALSE(opened->spec().tied_head);
  EXPECT_EQ(opened->spec().eos_token_ids, (std::vector<int32_t>{510, 509}));
  EXPECT_EQ(opened->type_summary(), "F16 + Q8_0 + Q4_0");
  EXPECT_NE(opened->tokenizer_source().gguf, nullptr);
  const TensorView& down = opened->tensor({WeightRole::kFfnDown, 1});
  EXPECT_EQ(down.name, "blk.1.ffn_down.weight");
  EXPECT_EQ(down.rows, 64);
  EXPECT_EQ(down.columns, 128);
  EXPECT_EQ(down.data.size(), 64U * 128 / 32 * 18);
  EXPECT_EQ(opened->tensor({WeightRole::kOutputNorm}).rows, 1);
  opened->drop_pages(down);
}

TEST(Checkpoint, OpensShardsWithATiedHead) {
  auto opened = Checkpoint::open(golden("tiny_llama_gguf/tiny-tied-00001-of-00002.gguf"));
  ASSERT_TRUE(opened.ok()) << opened.error().message();
  expect_tiny_sizes(opened->spec());
  EXPECT_TRUE(opened->spec().tied_head);
  EXPECT_EQ(opened->tensor({WeightRole::kOutputHead}).data.data(),
            opened->tensor({WeightRole::kTokenEmbedding}).data.data());
  EXPECT_EQ(opened->type_summary(), "BF16 + Q4_1 + Q5_0 + Q5_1");
}

TEST(Checkpoint, OpensAFolderOfShards) {
  auto opened = Checkpoint::open(golden("tiny_llama_hf"));
  ASSERT_TRUE(opened.ok()) << opened.error().message();
  expect_tiny_sizes(opened->spec());
  EXPECT_EQ(opened->spec().rope_layout, RopeLayout::kHalfSplit);
  EXPECT_FALSE(opened->spec().tied_head);
  EXPECT_EQ(opened->spec().eos_token_ids, (std::vector<int32_t>{505, 509, 510}));
  EXPECT_EQ(opened->type_summary(), "BF16");
  EXPECT_EQ(opened->tokenizer_source().gguf, nullptr);
  EXPECT_EQ(opened->tokenizer_source().folder, golden("tiny_llama_hf"));
  EXPECT_EQ(opened->tensor({WeightRole::kAttnK, 0}).name, "model.layers.0.self_attn.k_proj.weight");
  EXPECT_EQ(opened->tensor({WeightRole::kAttnK, 0}).rows, 32);
  opened->drop_pages(opened->tensor({WeightRole::kOutputHead}));
}

TEST(Checkpoint, OpensAFolderInTheStyleOfTransformers4) {
  auto opened = Checkpoint::open(golden("tiny_llama_hf_tied"));
  ASSERT_TRUE(opened.ok()) << opened.error().message();
  expect_tiny_sizes(opened->spec());
  EXPECT_TRUE(opened->spec().tied_head);
  EXPECT_EQ(opened->weight_bytes(), 427264U);
}

TEST(Checkpoint, ATiedHeadMayBeStoredToo) {
  ScratchFolder folder;
  for (const auto& entry : std::filesystem::directory_iterator(golden("tiny_llama_hf"))) {
    std::filesystem::copy(entry.path(), folder / entry.path().filename().string());
  }
  auto config = boost::json::parse(read_text(folder / "config.json")).as_object();
  config["tie_word_embeddings"] = true;
  write_text(folder / "config.json", boost::json::serialize(config));
  auto opened = Checkpoint::open(folder.path());
  ASSERT_TRUE(opened.ok()) << opened.error().message();
  EXPECT_EQ(opened->tensor({WeightRole::kOutputHead}).name, "model.embed_tokens.weight");
}

TEST(Checkpoint, DivisorsEqualThoseOfTransformers) {
  const auto golden_rope = boost::json::parse(read_text(golden("formats/llama3_rope.json")));
  for (const auto& item : golden_rope.at("cases").as_array()) {
    const RopeScaling scaling{item.at("factor").to_number<float>(),
                              item.at("low_freq_factor").to_number<float>(),
                              item.at("high_freq_factor").to_number<float>(),
                              item.at("original_max_position_embeddings").to_number<int32_t>()};
    const double theta = item.at("rope_theta").to_number<double>();
    const auto head_dim = item.at("head_dim").to_number<int32_t>();
    const std::vector<float> divisors = llama3_rope_divisors(scaling, theta, head_dim);
    const auto& expected = item.at("frequencies").as_array();
    ASSERT_EQ(divisors.size(), expected.size());
    for (size_t i = 0; i < divisors.size(); ++i) {
      const double frequency =
          std::pow(theta, -2.0 * static_cast<double>(i) / head_dim) / divisors[i];
      const double wanted = expected[i].to_number<double>();
      EXPECT_NEAR(frequency / wanted, 1.0, 1e-6) << "theta " << theta << ", pair " << i;
    }
  }
}

TEST(CheckpointRefuses, WrongPaths) {
  EXPECT_REFUSED(Checkpoint::open("/no/such/model"), ErrorCode::kNotFound, "/no/such/model");
  EXPECT_REFUSED(Checkpoint::open(""), ErrorCode::kNotFound, "No such file");
  EXPECT_REFUSED(Checkpoint::open("/dev/null"), ErrorCode::kIo, "not a regular file");
  EXPECT_REFUSED(Checkpoint::open(golden("tiny_llama_hf/config.json")), ErrorCode::kInvalidArgument,
                 "give the folder");
  EXPECT_REFUSED(Checkpoint::open(golden("tiny_llama_gguf")), ErrorCode::kNotFound,
                 "give the GGUF file itself");
  ScratchFolder folder;
  EXPECT_REFUSED(Checkpoint::open(folder.path()), ErrorCode::kNotFound, "holds no config.json");
  write_text(folder / "empty.gguf", "");
  EXPECT_REFUSED(Checkpoint::open(folder / "empty.gguf"), ErrorCode::kCorrupt, "the file is empty");
  write_text(folder / "config.json", "");
  EXPECT_REFUSED(Checkpoint::open(folder.path()), ErrorCode::kCorrupt, "config.json: invalid JSON");
  std::filesystem::copy(golden("tiny_llama_hf/config.json"), folder / "config.json",
                        std::filesystem::copy_options::overwrite_existing);
  EXPECT_REFUSED(Checkpoint::open(folder.path()), ErrorCode::kNotFound,
                 "neither model.safetensors");
}

TEST(CheckpointRefuses, ATruncatedModel) {
  const std::string whole = read_text(golden("tiny_llama_gguf/tiny.gguf"));
  for (size_t length = 0; length < whole.size(); length += length < 2000 ? 1 : 499) {
    const std::string prefix = whole.substr(0, length);
    ASSERT_FALSE(GgufFile::parse(bytes_of(prefix), "tiny.gguf").ok()) << length << " bytes";
  }
}

// tiny.gguf written again with changes.
class EditedGguf : public testing::Test {
 protected:
  std::set<std::string_view> dropped_;  // keys and tensors
  std::function<void(GgufWriter&)> add_ = [](GgufWriter&) {};
  std::function<void(GgufTensor&)> change_tensor_ = [](GgufTensor&) {};

  Result<Checkpoint> open() {
    auto file = GgufFile::open(golden("tiny_llama_gguf/tiny.gguf"));
    EXPECT_TRUE(file.ok());
    GgufWriter writer(folder_ / "edited.gguf", {});
    for (const auto& [key, value] : file->metadata()) {
      if (dropped_.contains(key)) continue;
      EXPECT_TRUE(writer.set(key, value).ok());
    }
    add_(writer);
    std::vector<GgufTensor> kept;
    for (GgufTensor tensor : file->tensors()) {
      if (dropped_.contains(tensor.name)) continue;
      change_tensor_(tensor);
      EXPECT_TRUE(writer.add_tensor(tensor.name, tensor.type, tensor.dims).ok());
      kept.push_back(tensor);
    }
    EXPECT_TRUE(writer.begin().ok());
    for (const GgufTensor& tensor : kept) EXPECT_TRUE(writer.write(tensor.data).ok());
    EXPECT_TRUE(writer.finish().ok());
    return Checkpoint::open(folder_ / "edited.gguf");
  }

  // The model with one key changed.
  template <typename T>
  Result<Checkpoint> open_with(std::string_view key, T value) {
    dropped_ = {key};
    add_ = [key, value](GgufWriter& writer) { EXPECT_TRUE(writer.set(key, value).ok()); };
    return open();
  }

  ScratchFolder folder_;
};

TEST_F(EditedGguf, UnchangedItOpens) {
  auto opened = open();
  ASSERT_TRUE(opened.ok()) << opened.error().message();
  expect_tiny_sizes(opened->spec());
}

TEST_F(EditedGguf, WithoutScalingDivisorsAreOne) {
  dropped_ = {"rope_freqs.weight"};
  auto opened = open();
  ASSERT_TRUE(opened.ok()) << opened.error().message();
  EXPECT_EQ(opened->spec().rope_divisors, std::vector<float>(8, 1.0F));
}

TEST_F(EditedGguf, OtherArchitectures) {
  EXPECT_REFUSED(open_with("general.architecture", "qwen2"), ErrorCode::kUnsupported,
                 "its architecture is \"qwen2\"; Puna serves \"llama\"");
  EXPECT_REFUSED(open_with("llama.expert_count", 8U), ErrorCode::kUnsupported, "8 experts");
  EXPECT_REFUSED(open_with("llama.rope.scaling.type", "yarn"), ErrorCode::kUnsupported, "\"yarn\"");
  EXPECT_REFUSED(open_with("llama.rope.scale_linear", 4.0F), ErrorCode::kUnsupported,
                 "scale_linear");
  EXPECT_REFUSED(open_with("llama.rope.dimension_count", 8U), ErrorCode::kUnsupported, "8 of 16");
  EXPECT_REFUSED(open_with("llama.attention.value_length", 8U), ErrorCode::kUnsupported,
                 "value heads 8");
}

TEST_F(EditedGguf, MissingKeys) {
  for (const char* key : {"general.architecture", "llama.block_count", "llama.embedding_length",
                          "llama.feed_forward_length", "llama.context_length",
                          "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon"}) {
    dropped_ = {key};
    EXPECT_REFUSED(open(), ErrorCode::kCorrupt, std::string(key) + " is missing");
  }
}

TEST_F(EditedGguf, ImpossibleSizes) {
  for (const char* key :
       {"llama.block_count", "llama.embedding_length", "llama.feed_forward_length",
        "llama.context_length", "llama.attention.head_count", "llama.attention.head_count_kv",
        "llama.attention.key_length"}) {
    for (const int64_t value :
         {int64_t{0}, int64_t{-1}, int64_t{INT32_MAX}, INT64_MAX, int64_t{1} << 32}) {
      EXPECT_FALSE(open_with(key, value).ok()) << key << " = " << value;
    }
    EXPECT_REFUSED(open_with(key, "64"), ErrorCode::kCorrupt, "is not an integer");
  }
  EXPECT_REFUSED(open_with("llama.attention.head_count", 3U), ErrorCode::kCorrupt,
                 "no multiple of 3 heads");
  EXPECT_REFUSED(open_with("llama.attention.head_count_kv", 3U), ErrorCode::kCorrupt,
                 "share 3 KV heads");
  EXPECT_REFUSED(open_with("llama.vocab_size", 500U), ErrorCode::kCorrupt, "has 512 rows");
  EXPECT_REFUSED(open_with("llama.block_count", 3U), ErrorCode::kCorrupt,
                 "blk.2.attn_norm.weight\" is missing");
  EXPECT_REFUSED(open_with("llama.block_count", 1U), ErrorCode::kUnsupported, "blk.1.");
  EXPECT_REFUSED(open_with("llama.feed_forward_length", 64U), ErrorCode::kCorrupt,
                 "has shape [128, 64]");
}

TEST_F(EditedGguf, ImpossibleNumbers) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float value : {nan, infinity, 0.0F, -1.0F}) {
    EXPECT_REFUSED(open_with("llama.attention.layer_norm_rms_epsilon", value), ErrorCode::kCorrupt,
                   "epsilon");
    EXPECT_REFUSED(open_with("llama.rope.freq_base", value), ErrorCode::kCorrupt, "RoPE base");
  }
  EXPECT_REFUSED(open_with("tokenizer.ggml.eos_token_id", 512U), ErrorCode::kCorrupt,
                 "token 512 is outside");
}

TEST_F(EditedGguf, ImpossibleTensors) {
  dropped_ = {"blk.1.ffn_up.weight"};
  EXPECT_REFUSED(open(), ErrorCode::kCorrupt, "\"blk.1.ffn_up.weight\" is missing");
  dropped_ = {"token_embd.weight"};
  EXPECT_REFUSED(open(), ErrorCode::kCorrupt, "token_embd.weight");
  dropped_ = {};
  change_tensor_ = [](GgufTensor& tensor) {
    if (tensor.name == "blk.0.attn_q.weight") tensor.dims = {128, 32};
  };
  EXPECT_REFUSED(open(), ErrorCode::kCorrupt,
                 "has shape [32, 128], the model's settings need [64, 64]");
  change_tensor_ = [](GgufTensor& tensor) {
    if (tensor.name == "blk.0.attn_norm.weight") tensor.name = "blk.0.attn_q.bias";
  };
  EXPECT_REFUSED(open(), ErrorCode::kCorrupt, "blk.0.attn_norm.weight\" is missing");
  change_tensor_ = [](GgufTensor& tensor) {
    if (tensor.name == "rope_freqs.weight") tensor.name = "blk.0.attn_q.bias";
  };
  EXPECT_REFUSED(open(), ErrorCode::kUnsupported, "\"blk.0.attn_q.bias\" is no part");
  dropped_ = {"output.weight"};  // a tied head makes no room for it
  EXPECT_REFUSED(open(), ErrorCode::kUnsupported, "\"blk.0.attn_q.bias\" is no part");
  dropped_ = {};
  change_tensor_ = [](GgufTensor& tensor) {
    if (tensor.name == "rope_freqs.weight")
      tensor.data = tensor.data.first((tensor.dims = {7})[0] * 4);
  };
  EXPECT_REFUSED(open(), ErrorCode::kCorrupt, "must be 8 values of F32");
  static const float kBad[8] = {1, 1, 0, 1, 1, 1, 1, 1};
  change_tensor_ = [](GgufTensor& tensor) {
    if (tensor.name == "rope_freqs.weight") tensor.data = std::as_bytes(std::span(kBad));
  };
  EXPECT_REFUSED(open(), ErrorCode::kCorrupt, "divisor is 0");
}

// tiny_llama_hf_tied with another config.json.
class EditedFolder : public testing::Test {
 protected:
  EditedFolder() {
    for (const auto& entry : std::filesystem::directory_iterator(golden("tiny_llama_hf_tied"))) {
      std::filesystem::copy(entry.path(), folder_ / entry.path().filename().string());
    }
    config_ = boost::json::parse(read_text(folder_ / "config.json")).as_object();
  }

  Result<Checkpoint> open_config(const boost::json::object& config) {
    write_text(folder_ / "config.json", boost::json::serialize(config));
    return Checkpoint::open(folder_.path());
  }
  // `value` is JSON text; empty drops the field.
  Result<Checkpoint> open_with(std::string_view key, const std::string& value) {
    boost::json::object config = config_;
    config.erase(key);
    if (!value.empty()) config[key] = boost::json::parse(value);
    return open_config(config);
  }

  ScratchFolder folder_;
  boost::json::object config_;
};

TEST_F(EditedFolder, OptionalFields) {
  EXPECT_TRUE(open_with("rms_norm_eps", "").ok());
  EXPECT_TRUE(open_with("head_dim", "16").ok());
  EXPECT_TRUE(open_with("head_dim", "null").ok());
  EXPECT_TRUE(open_with("attention_bias", "").ok());
  EXPECT_TRUE(open_with("tie_word_embeddings", "true").ok());
  auto plain = open_with("rope_scaling", "null");
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(plain->spec().rope_divisors, std::vector<float>(8, 1.0F));
  EXPECT_TRUE(open_with("rope_scaling", R"({"rope_type":"default"})").ok());
}

TEST_F(EditedFolder, EosTokens) {
  std::filesystem::remove(folder_ / "generation_config.json");
  auto opened = open_with("eos_token_id", "7");
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ(opened->spec().eos_token_ids, std::vector<int32_t>{7});
  opened = open_with("eos_token_id", "[7, 8, 7]");
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ(opened->spec().eos_token_ids, (std::vector<int32_t>{7, 8}));
  opened = open_with("eos_token_id", "null");
  ASSERT_TRUE(opened.ok());
  EXPECT_TRUE(opened->spec().eos_token_ids.empty());
  EXPECT_REFUSED(open_with("eos_token_id", "512"), ErrorCode::kCorrupt, "token 512");
  EXPECT_REFUSED(open_with("eos_token_id", "-1"), ErrorCode::kCorrupt, "eos_token_id");
  EXPECT_REFUSED(open_with("eos_token_id", "\"x\""), ErrorCode::kCorrupt, "eos_token_id");
  EXPECT_REFUSED(open_with("eos_token_id", "[[1]]"), ErrorCode::kCorrupt, "eos_token_id");
  write_text(folder_ / "generation_config.json", "[]");
  EXPECT_REFUSED(open_config(config_), ErrorCode::kCorrupt, "generation_config.json");
}

TEST_F(EditedFolder, UnsupportedModels) {
  EXPECT_REFUSED(open_with("model_type", "\"mixtral\""), ErrorCode::kUnsupported,
                 "model_type \"mixtral\"");
  EXPECT_REFUSED(open_with("model_type", ""), ErrorCode::kCorrupt, "\"model_type\" is missing");
  EXPECT_REFUSED(open_with("attention_bias", "true"), ErrorCode::kUnsupported, "attention_bias");
  EXPECT_REFUSED(open_with("mlp_bias", "true"), ErrorCode::kUnsupported, "mlp_bias");
  EXPECT_REFUSED(open_with("hidden_act", "\"gelu\""), ErrorCode::kUnsupported,
                 "hidden_act \"gelu\"");
  EXPECT_REFUSED(open_with("quantization_config", R"({"quant_method":"hqq"})"),
                 ErrorCode::kUnsupported, "quant_method \"hqq\"");
  EXPECT_REFUSED(open_with("rope_scaling", R"({"rope_type":"yarn","factor":4})"),
                 ErrorCode::kUnsupported, "rope_scaling with rope_type \"yarn\"");
  EXPECT_REFUSED(open_with("rope_scaling", R"({"type":"linear","factor":4})"),
                 ErrorCode::kUnsupported, "\"linear\"");
  EXPECT_REFUSED(open_with("rope_parameters", R"({"rope_type":"longrope"})"),
                 ErrorCode::kUnsupported, "rope_parameters with rope_type \"longrope\"");
  EXPECT_REFUSED(open_with("rope_parameters", R"({"partial_rotary_factor":0.5})"),
                 ErrorCode::kUnsupported, "partial_rotary_factor");
  EXPECT_REFUSED(open_with("tie_word_embeddings", "false"), ErrorCode::kCorrupt,
                 "lm_head.weight\" is missing");
}

TEST_F(EditedFolder, ImpossibleValues) {
  for (const char* key :
       {"num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
        "num_key_value_heads", "head_dim", "vocab_size", "max_position_embeddings"}) {
    for (const char* value : {"0", "-1", "1.5", "\"64\"", "2147483647", "1e300",
                              "18446744073709551616", "true", "[]"}) {
      EXPECT_FALSE(open_with(key, value).ok()) << key << " = " << value;
    }
  }
  for (const char* key : {"num_hidden_layers", "hidden_size", "intermediate_size",
                          "num_attention_heads", "vocab_size"}) {
    EXPECT_REFUSED(open_with(key, ""), ErrorCode::kCorrupt, std::string(key) + "\" is missing");
  }
  EXPECT_REFUSED(open_with("rms_norm_eps", "0"), ErrorCode::kCorrupt, "epsilon");
  EXPECT_REFUSED(open_with("rms_norm_eps", "\"x\""), ErrorCode::kCorrupt, "rms_norm_eps");
  EXPECT_REFUSED(open_with("rope_theta", "-3"), ErrorCode::kCorrupt, "rope_theta");
  EXPECT_REFUSED(open_with("tie_word_embeddings", "1"), ErrorCode::kCorrupt,
                 "neither true nor false");
  EXPECT_REFUSED(open_with("rope_scaling", "[]"), ErrorCode::kCorrupt, "no object");
  EXPECT_REFUSED(open_with("num_hidden_layers", "1"), ErrorCode::kUnsupported, "model.layers.1.");
}

TEST_F(EditedFolder, ImpossibleRopeScaling) {
  const boost::json::object good = config_["rope_scaling"].as_object();
  for (const auto& [key, value] :
       std::vector<std::pair<std::string, double>>{{"factor", 0.0},
                                                   {"factor", -8.0},
                                                   {"factor", 1e30},
                                                   {"low_freq_factor", 0.0},
                                                   {"low_freq_factor", 4.0},
                                                   {"high_freq_factor", 0.5},
                                                   {"high_freq_factor", 1e30},
                                                   {"original_max_position_embeddings", 0.0},
                                                   {"original_max_position_embeddings", 1e18}}) {
    boost::json::object bad = good;
    bad[key] = value;
    EXPECT_FALSE(open_with("rope_scaling", boost::json::serialize(bad)).ok())
        << key << " = " << value;
  }
  for (const char* key : {"factor", "low_freq_factor", "high_freq_factor"}) {
    boost::json::object bad = good;
    bad.erase(key);
    EXPECT_REFUSED(open_with("rope_scaling", boost::json::serialize(bad)), ErrorCode::kCorrupt,
                   key);
  }
}

}  // namespace
}  // namespace puna::formats
