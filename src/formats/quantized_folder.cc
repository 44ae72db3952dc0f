// SPDX-License-Identifier: Apache-2.0
#include "formats/quantized_folder.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/checked_math.h"
#include "base/numeric.h"
#include "formats/json_text.h"
#include "formats/message_text.h"

namespace puna::formats {
namespace {

namespace json = boost::json;
using Dtype = SafetensorsDtype;

constexpr int64_t kPerWord = 8;            // int4 codes in an int32
constexpr int64_t kBlock = 32;             // elements of a Q8_0 block: f16 scale, then 32 int8
constexpr float kLargestScale = 65504.0F;  // float16's

uint32_t word_at(const SafetensorsTensor& tensor, int64_t index) {
  uint32_t word = 0;
  std::memcpy(&word, tensor.data.data() + index * 4, sizeof(word));
  return word;
}

int nibble(uint32_t word, int64_t index) { return static_cast<int>(word >> (4 * index) & 15); }

// An element of a float tensor.
float float_at(const SafetensorsTensor& tensor, int64_t index) {
  const auto at = static_cast<size_t>(index);
  if (tensor.dtype == Dtype::kF32) {
    float value = 0.0F;
    std::memcpy(&value, tensor.data.data() + at * 4, sizeof(value));
    return value;
  }
  uint16_t bits = 0;
  std::memcpy(&bits, tensor.data.data() + at * 2, sizeof(bits));
  return tensor.dtype == Dtype::kF16 ? to_float(Float16{bits}) : to_float(BFloat16{bits});
}

bool is_float(const SafetensorsTensor& tensor) { return float_type(tensor.dtype).has_value(); }

// e4m3: sign, 4 bits of exponent (bias 7), 3 of mantissa; 0x7F and 0xFF are NaN, no infinity.
float decode_e4m3(uint8_t bits) {
  const int exponent = bits >> 3 & 15;
  const int mantissa = bits & 7;
  if (exponent == 15 && mantissa == 7) return std::nanf("");
  const float magnitude = exponent == 0
                              ? std::ldexp(static_cast<float>(mantissa), -9)
                              : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return (bits & 0x80) != 0 ? -magnitude : magnitude;
}

bool has_shape(const SafetensorsTensor& tensor, std::initializer_list<int64_t> dims) {
  return std::equal(tensor.dims.begin(), tensor.dims.end(), dims.begin(), dims.end(),
                    [](uint64_t a, int64_t b) { return b >= 0 && a == static_cast<uint64_t>(b); });
}

std::string text_of(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

std::optional<int64_t> number_of(const json::object& object, std::string_view key) {
  const json::value* value = object.if_contains(key);
  return value != nullptr && value->is_int64() ? std::optional(value->get_int64()) : std::nullopt;
}

Error unsupported(const std::string& where, std::string_view what) {
  return Error(ErrorCode::kUnsupported,
               "{}: quantization_config with {}; Puna reads AWQ (gemm) and GPTQ with 4 bits, "
               "compressed-tensors with int4, int8 or fp8 weights, and ModelOpt's FP8",
               where, what);
}

Result<std::optional<QuantSettings>> modelopt_settings(const json::object& settings,
                                                       const std::string& where) {
  const std::string algorithm = text_of(settings, "quant_algo");
  if (algorithm != "FP8") return unsupported(where, "quant_algo " + in_quotes(algorithm));
  QuantSettings result;
  result.method = QuantMethod::kModelOpt;
  return std::optional(result);
}

}  // namespace

Result<std::optional<QuantSettings>> read_modelopt_settings(const json::object& file,
                                                            const std::string& where) {
  const json::value* settings = file.if_contains("quantization");
  if (settings == nullptr || !settings->is_object())
    return unsupported(where, "no \"quantization\"");
  return modelopt_settings(settings->get_object(), where);
}

Result<std::optional<QuantSettings>> read_quant_settings(const json::object& config,
                                                         const std::string& where) {
  const json::value* value = config.if_contains("quantization_config");
  if (value == nullptr || value->is_null()) return std::optional<QuantSettings>();
  if (!value->is_object()) return unsupported(where, "no fields");
  const json::object& settings = value->get_object();
  const std::string method = text_of(settings, "quant_method");
  QuantSettings result;
  if (method == "compressed-tensors") {
    const std::string format = text_of(settings, "format");
    if (format != "pack-quantized" && format != "int-quantized" && format != "float-quantized" &&
        format != "naive-quantized") {
      return unsupported(where, "format " + in_quotes(format));
    }
    return std::optional(result);
  }
  if (method == "modelopt") return modelopt_settings(settings, where);
  if (method == "fp8") {
    result.method = QuantMethod::kModelOpt;
    return std::optional(result);
  }
  if (method != "awq" && method != "gptq")
    return unsupported(where, "quant_method " + in_quotes(method));
  const int64_t bits =
      number_of(settings, method == "awq" && !settings.contains("bits") ? "w_bit" : "bits")
          .value_or(0);
  if (bits != 4) return unsupported(where, fmt::format("{} bits", bits));
  result.group_size =
      number_of(settings, settings.contains("group_size") ? "group_size" : "q_group_size")
          .value_or(-1);
  if (result.group_size == 0 || result.group_size < -1)
    return unsupported(where, fmt::format("group_size {}", result.group_size));
  result.method = method == "awq" ? QuantMethod::kAwq : QuantMethod::kGptq;
  const std::string version = text_of(settings, "version");
  if (method == "awq" && !version.empty() && version != "gemm" && version != "GEMM")
    return unsupported(where, "version " + in_quotes(version));
  result.zeros_minus_one = method == "gptq" && text_of(settings, "checkpoint_format") != "gptq_v2";
  return std::optional(result);
}

Error QuantizedFolder::damaged(std::string_view name, std::string_view problem) const {
  return Error(ErrorCode::kCorrupt, "{}: quantised weight {} {}", folder_, in_quotes(name),
               problem);
}

const SafetensorsTensor* QuantizedFolder::part(const std::string& base, const char* suffix) {
  const std::string name = base + suffix;
  const SafetensorsTensor* tensor = files_.find(name);
  if (tensor != nullptr) used_.insert(name);
  return tensor;
}

std::span<std::byte> QuantizedFolder::allocate(uint64_t bytes) {
  memory_.push_back(std::make_unique<std::byte[]>(bytes));
  return {memory_.back().get(), bytes};
}

Result<NamedTensor> QuantizedFolder::find(const std::string& name) {
  constexpr std::string_view kWeight = ".weight";
  const std::string base = name.substr(0, name.size() - kWeight.size());
  for (const char* known : {".input_scale", ".k_scale", ".v_scale", ".output_scale", ".bias_scale"})
    (void)part(base, known);  // of activations and the KV cache, which are kept in Puna's own types
  if (files_.find(base + ".qweight") != nullptr) return awq_or_gptq(base);
  if (files_.find(base + ".weight_packed") != nullptr) return packed_int4(base);
  const SafetensorsTensor* weight = part(base, ".weight");
  if (weight == nullptr)
    return Error(ErrorCode::kCorrupt, "{}: tensor \"{}\" is missing", folder_, name);
  if (const auto type = float_type(weight->dtype)) {
    return NamedTensor{weight->name, *type, weight->dims, weight->data};
  }
  if (weight->dims.size() != 2) return damaged(name, "is no matrix");
  if (weight->dtype == Dtype::kI8) return int8_tensor(base, *weight);
  if (weight->dtype == Dtype::kF8E4M3) return fp8_tensor(base, *weight);
  return Error(ErrorCode::kUnsupported,
               "{}: tensor {} has dtype {}, which is no weight that Puna knows", folder_,
               in_quotes(name), safetensors_dtype_name(weight->dtype));
}

// Writes code(row, column) * scale(row, column), where the code has its zero point taken off, as
// Q8_0 where the scales fit, else as F16 or F32. `runs_of_32`: every 32 columns from a multiple of
// 32 on share a scale.
template <typename Code, typename Scale>
Result<NamedTensor> QuantizedFolder::stored(const SafetensorsTensor& main, int64_t rows,
                                            int64_t columns, bool runs_of_32, Code code,
                                            Scale scale) {
  bool tiny = false;  // a scale below float16's normal range
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; column += runs_of_32 ? kBlock : 1) {
      const float magnitude = std::fabs(scale(row, column));
      if (!(magnitude <= kLargestScale)) {
        return damaged(main.name, "has a scale that is not finite or too large");
      }
      tiny = tiny || (magnitude > 0.0F && magnitude < 0x1p-14F);
    }
  }
  TensorType type = runs_of_32 ? TensorType::kQ8_0 : TensorType::kF16;
  if (tiny) type = TensorType::kF32;
  const auto elements = static_cast<uint64_t>(rows * columns);
  const std::span<std::byte> out = allocate(*tensor_bytes(type, elements));
  std::byte* next = out.data();
  const auto put = [&next](auto value) {
    std::memcpy(next, &value, sizeof(value));
    next += sizeof(value);
  };
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      if (type == TensorType::kQ8_0) {
        if (column % kBlock == 0) put(to_float16(scale(row, column)));
        put(static_cast<int8_t>(code(row, column)));
        continue;
      }
      const float value = scale(row, column) * static_cast<float>(code(row, column));
      if (type == TensorType::kF32) put(value);
      if (type == TensorType::kF16) put(to_float16(value));
    }
  }
  return NamedTensor{
      main.name, type, {static_cast<uint64_t>(rows), static_cast<uint64_t>(columns)}, out};
}

// AWQ and GPTQ: [columns, rows] in the file, scales and zero points by group of columns.
Result<NamedTensor> QuantizedFolder::awq_or_gptq(const std::string& base) {
  const SafetensorsTensor& packed = *part(base, ".qweight");
  const SafetensorsTensor* scales = part(base, ".scales");
  const SafetensorsTensor* zeros = part(base, ".qzeros");
  const SafetensorsTensor* g_idx = part(base, ".g_idx");
  if (part(base, ".bias") != nullptr) return damaged(packed.name, "has a bias");
  if (packed.dtype != Dtype::kI32 || packed.dims.size() != 2 || scales == nullptr ||
      !is_float(*scales) || scales->dims.size() != 2 || zeros == nullptr ||
      zeros->dtype != Dtype::kI32) {
    return damaged(packed.name, "lacks scales or qzeros, or they have a wrong type");
  }
  const bool awq = settings_.method == QuantMethod::kAwq;
  const auto rows = static_cast<int64_t>(scales->dims[1]);
  const auto groups = static_cast<int64_t>(scales->dims[0]);
  const int64_t columns = static_cast<int64_t>(packed.dims[0]) * (awq ? 1 : kPerWord);
  const int64_t group = settings_.group_size < 0 ? columns : settings_.group_size;
  if (rows % kPerWord != 0 || !has_shape(*zeros, {groups, rows / kPerWord}) ||
      groups != ceil_div(columns, group) || columns % kBlock != 0 ||
      (awq && !has_shape(packed, {columns, rows / kPerWord})) ||
      (!awq && !has_shape(packed, {columns / kPerWord, rows}))) {
    return damaged(packed.name, "has parts whose shapes contradict each other");
  }
  // Without act-order g_idx is column / group, and files may leave it out or at zero.
  std::vector<int32_t> group_of(static_cast<size_t>(columns));
  for (int64_t i = 0; i < columns; ++i)
    group_of[static_cast<size_t>(i)] = static_cast<int32_t>(i / group);
  if (g_idx != nullptr) {
    if (g_idx->dtype != Dtype::kI32 || !has_shape(*g_idx, {columns})) {
      return damaged(packed.name, "has a g_idx that is no list of its columns' groups");
    }
    bool any = false;
    for (int64_t i = 0; i < columns; ++i) any = any || word_at(*g_idx, i) != 0;
    for (int64_t i = 0; any && i < columns; ++i) {
      const uint32_t index = word_at(*g_idx, i);
      if (index >= static_cast<uint64_t>(groups))
        return damaged(packed.name, "has a g_idx out of range");
      group_of[static_cast<size_t>(i)] = static_cast<int32_t>(index);
    }
  }
  bool runs = true;
  for (int64_t i = 0; i < columns; ++i) {
    runs = runs &&
           group_of[static_cast<size_t>(i)] == group_of[static_cast<size_t>(i / kBlock * kBlock)];
  }
  // AWQ packs along rows with its nibbles shuffled; GPTQ packs codes along columns, zeros along
  // rows.
  constexpr std::array<int64_t, 8> kAwqNibble = {0, 4, 1, 5, 2, 6, 3, 7};
  const int64_t words = rows / kPerWord;
  const auto zero_at = [&](int64_t row, int64_t g) {
    const int64_t place = awq ? kAwqNibble[static_cast<size_t>(row % kPerWord)] : row % kPerWord;
    const int stored_zero = nibble(word_at(*zeros, g * words + row / kPerWord), place);
    return settings_.zeros_minus_one ? (stored_zero + 1) & 15 : stored_zero;
  };
  const auto code = [&](int64_t row, int64_t column) {
    const int q = awq ? nibble(word_at(packed, column * words + row / kPerWord),
                               kAwqNibble[static_cast<size_t>(row % kPerWord)])
                      : nibble(word_at(packed, column / kPerWord * rows + row), column % kPerWord);
    return q - zero_at(row, group_of[static_cast<size_t>(column)]);
  };
  const auto scale = [&](int64_t row, int64_t column) {
    return float_at(*scales, group_of[static_cast<size_t>(column)] * rows + row);
  };
  return stored(packed, rows, columns, runs, code, scale);
}

// compressed-tensors, pack-quantized: 4-bit codes + 8 along columns.
Result<NamedTensor> QuantizedFolder::packed_int4(const std::string& base) {
  const SafetensorsTensor& packed = *part(base, ".weight_packed");
  const SafetensorsTensor* scales = part(base, ".weight_scale");
  const SafetensorsTensor* shape = part(base, ".weight_shape");
  const SafetensorsTensor* zeros = part(base, ".weight_zero_point");
  const SafetensorsTensor* g_idx = part(base, ".weight_g_idx");
  if (packed.dtype != Dtype::kI32 || packed.dims.size() != 2 || scales == nullptr ||
      !is_float(*scales) || scales->dims.size() != 2 || shape == nullptr ||
      !has_shape(*shape, {2})) {
    return damaged(packed.name, "lacks weight_scale or weight_shape, or they have a wrong type");
  }
  int64_t sizes[2] = {};
  for (int64_t i = 0; i < 2; ++i) {
    if (shape->dtype == Dtype::kI64) std::memcpy(&sizes[i], shape->data.data() + i * 8, 8);
    if (shape->dtype == Dtype::kI32) sizes[i] = word_at(*shape, i);
  }
  const auto [rows, columns] = sizes;
  const auto groups = static_cast<int64_t>(scales->dims[1]);
  if (rows <= 0 || columns <= 0 || columns % kBlock != 0 || groups == 0 || columns % groups != 0 ||
      !has_shape(packed, {rows, columns / kPerWord}) || !has_shape(*scales, {rows, groups})) {
    return damaged(packed.name, "has parts whose shapes contradict each other (or not 4 bits)");
  }
  if (zeros != nullptr &&
      (zeros->dtype != Dtype::kI32 || !has_shape(*zeros, {ceil_div(rows, kPerWord), groups}))) {
    return damaged(packed.name, "has zero points of a wrong shape");
  }
  if (g_idx != nullptr && (g_idx->dtype != Dtype::kI32 || !has_shape(*g_idx, {columns}))) {
    return damaged(packed.name, "has a weight_g_idx of a wrong shape");
  }
  const int64_t group = columns / groups;
  std::vector<int64_t> group_of(static_cast<size_t>(columns));
  for (int64_t i = 0; i < columns; ++i) {
    int64_t index = i / group;
    if (g_idx != nullptr) index = word_at(*g_idx, i);
    if (index >= groups) return damaged(packed.name, "has a weight_g_idx out of range");
    group_of[static_cast<size_t>(i)] = index;
  }
  bool runs = true;
  for (int64_t i = 0; i < columns; ++i) {
    runs = runs &&
           group_of[static_cast<size_t>(i)] == group_of[static_cast<size_t>(i / kBlock * kBlock)];
  }
  const auto code = [&, columns = columns](int64_t row, int64_t column) {
    const int q =
        nibble(word_at(packed, row * (columns / kPerWord) + column / kPerWord), column % kPerWord);
    if (zeros == nullptr) return q - 8;
    const int64_t g = group_of[static_cast<size_t>(column)];
    return q - nibble(word_at(*zeros, row / kPerWord * groups + g), row % kPerWord);
  };
  const auto scale = [&](int64_t row, int64_t column) {
    return float_at(*scales, row * groups + group_of[static_cast<size_t>(column)]);
  };
  return stored(packed, rows, columns, runs, code, scale);
}

// Where the scale of (row, column) is: one, one per row, per row and group, or per block of 128.
struct QuantizedFolder::ScaleGrid {
  const SafetensorsTensor* tensor = nullptr;
  int64_t per_row = 1;   // scales in a row of the grid
  int64_t row_span = 1;  // rows of the weight per row of the grid
  int64_t column_span = 1;
  float at(int64_t row, int64_t column) const {
    return float_at(*tensor, row / row_span * per_row + column / column_span);
  }
};

Result<QuantizedFolder::ScaleGrid> QuantizedFolder::scale_grid(const std::string& base,
                                                               const SafetensorsTensor& weight) {
  constexpr int64_t kSquare = 128;
  const SafetensorsTensor* scales = part(base, ".weight_scale");
  if (scales == nullptr) scales = part(base, ".weight_scale_inv");
  const auto rows = static_cast<int64_t>(weight.dims[0]);
  const auto columns = static_cast<int64_t>(weight.dims[1]);
  if (scales == nullptr || !is_float(*scales) || rows == 0 || columns == 0) {
    return damaged(weight.name, "lacks weight_scale");
  }
  if (scales->dims.empty() || has_shape(*scales, {1}) || has_shape(*scales, {1, 1}))
    return ScaleGrid{scales, 1, rows, columns};
  if (has_shape(*scales, {rows, 1}) || has_shape(*scales, {rows}))
    return ScaleGrid{scales, 1, 1, columns};
  if (has_shape(*scales, {ceil_div(rows, kSquare), ceil_div(columns, kSquare)})) {
    return ScaleGrid{scales, ceil_div(columns, kSquare), kSquare, kSquare};
  }
  if (scales->dims.size() == 2 &&
      has_shape(*scales, {rows, static_cast<int64_t>(scales->dims[1])})) {
    const auto groups = static_cast<int64_t>(scales->dims[1]);
    if (groups > 0 && columns % groups == 0) return ScaleGrid{scales, groups, 1, columns / groups};
  }
  return damaged(weight.name, "has a weight_scale of a shape that Puna does not know");
}

Result<NamedTensor> QuantizedFolder::int8_tensor(const std::string& base,
                                                 const SafetensorsTensor& weight) {
  ASSIGN_OR_RETURN(const ScaleGrid grid, scale_grid(base, weight));
  if (part(base, ".weight_zero_point") != nullptr) {
    return Error(ErrorCode::kUnsupported, "{}: {} has zero points; Puna reads symmetric int8",
                 folder_, in_quotes(weight.name));
  }
  const auto rows = static_cast<int64_t>(weight.dims[0]);
  const auto columns = static_cast<int64_t>(weight.dims[1]);
  if (columns % kBlock != 0) return damaged(weight.name, "has rows that are no multiple of 32");
  const auto code = [&](int64_t row, int64_t column) {
    return static_cast<int>(
        static_cast<int8_t>(weight.data[static_cast<size_t>(row * columns + column)]));
  };
  const auto scale = [&](int64_t row, int64_t column) { return grid.at(row, column); };
  return stored(weight, rows, columns, grid.column_span % kBlock == 0, code, scale);
}

Result<NamedTensor> QuantizedFolder::fp8_tensor(const std::string& base,
                                                const SafetensorsTensor& weight) {
  ASSIGN_OR_RETURN(const ScaleGrid grid, scale_grid(base, weight));
  std::array<float, 256> table{};
  for (size_t bits = 0; bits < table.size(); ++bits)
    table[bits] = decode_e4m3(static_cast<uint8_t>(bits));
  const auto rows = static_cast<int64_t>(weight.dims[0]);
  const auto columns = static_cast<int64_t>(weight.dims[1]);
  const std::span<std::byte> out =
      allocate(*tensor_bytes(TensorType::kBF16, static_cast<uint64_t>(rows * columns)));
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      const int64_t at = row * columns + column;
      const float value =
          table[static_cast<size_t>(weight.data[static_cast<size_t>(at)])] * grid.at(row, column);
      if (!std::isfinite(value)) return damaged(weight.name, "holds a number that is not finite");
      const BFloat16 half = to_bfloat16(value);
      std::memcpy(out.data() + at * 2, &half, sizeof(half));
    }
  }
  return NamedTensor{weight.name, TensorType::kBF16, weight.dims, out};
}

}  // namespace puna::formats
