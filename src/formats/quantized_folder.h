// SPDX-License-Identifier: Apache-2.0
// Quantised weights of a Hugging Face folder, decoded into tensor types that every backend has:
//   int4 of AWQ, GPTQ (v1, v2, desc_act), compressed-tensors, and int8   -> Q8_0
//   fp8 e4m3 of compressed-tensors and ModelOpt, per tensor, channel or block -> BF16
// Integers become Q8_0 exactly: the code minus its zero point is the int8, the scale is the
// block's. Rounded are: scales that float16 does not hold (by 2^-11 at most), fp8 times its scale
// (2^-9), and weights whose groups are not runs of 32 columns (desc_act), which become F16 (2^-11).
// A scale too small for that makes the tensor F32. Sources: AutoAWQ's and AutoGPTQ's packing,
// compressed-tensors' config_groups. Internal to formats.
#pragma once

#include <boost/json.hpp>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "formats/safetensors.h"
#include "formats/weight_names.h"

namespace puna::formats {

enum class QuantMethod : uint8_t { kAwq, kGptq, kCompressedTensors, kModelOpt };

struct QuantSettings {
  QuantMethod method = QuantMethod::kCompressedTensors;
  int64_t group_size = -1;       // -1: a whole row; AWQ and GPTQ
  bool zeros_minus_one = false;  // GPTQ v1 stores zero points less one
};

// The settings in config.json's "quantization_config", or nothing without it. Errors: kUnsupported
// for a method or a number of bits that is not read.
Result<std::optional<QuantSettings>> read_quant_settings(const boost::json::object& config,
                                                         const std::string& where);

// The same of ModelOpt's hf_quant_config.json. Errors: kUnsupported for anything but FP8.
Result<std::optional<QuantSettings>> read_modelopt_settings(const boost::json::object& file,
                                                            const std::string& where);

class QuantizedFolder {
 public:
  QuantizedFolder(const SafetensorsFolder& files, const QuantSettings& settings,
                  const std::string& folder)
      : files_(files), settings_(settings), folder_(folder) {}

  // The weight of a linear layer, "model.layers.0.self_attn.q_proj.weight": as it is when it is
  // plain floats, else decoded.
  Result<NamedTensor> find(const std::string& name);

  // The decoded bytes, which the tensors point into.
  std::vector<std::unique_ptr<std::byte[]>> take_memory() { return std::move(memory_); }
  // Names of the tensors that find() has used.
  const std::set<std::string, std::less<>>& used() const { return used_; }

 private:
  struct ScaleGrid;

  const SafetensorsTensor* part(const std::string& base, const char* suffix);
  Result<NamedTensor> awq_or_gptq(const std::string& base);
  Result<NamedTensor> packed_int4(const std::string& base);
  Result<NamedTensor> int8_tensor(const std::string& base, const SafetensorsTensor& weight);
  Result<NamedTensor> fp8_tensor(const std::string& base, const SafetensorsTensor& weight);
  Result<ScaleGrid> scale_grid(const std::string& base, const SafetensorsTensor& weight);
  template <typename Code, typename Scale>
  Result<NamedTensor> stored(const SafetensorsTensor& main, int64_t rows, int64_t columns,
                             bool runs_of_32, Code code, Scale scale);
  std::span<std::byte> allocate(uint64_t bytes);
  Error damaged(std::string_view name, std::string_view problem) const;

  const SafetensorsFolder& files_;
  const QuantSettings settings_;
  const std::string& folder_;
  std::vector<std::unique_ptr<std::byte[]>> memory_;
  std::set<std::string, std::less<>> used_;
};

}  // namespace puna::formats
