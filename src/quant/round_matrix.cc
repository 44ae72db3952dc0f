// SPDX-License-Identifier: Apache-2.0
#include "quant/round_matrix.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <utility>

#include "formats/message_text.h"
#include "quant/awq.h"
#include "quant/dequant.h"
#include "quant/encode_kernels.h"
#include "quant/fp8.h"
#include "quant/run_on_threads.h"

namespace puna::quant {
namespace {

constexpr float kLargestFp8 = 448.0F;
constexpr float kLargestInt8 = 127.0F;

float largest_of(std::span<const float> row) {
  float largest = 0.0F;
  for (const float value : row) largest = std::max(largest, std::fabs(value));
  return largest;
}

float inverse_of(float scale) { return scale > 0.0F ? 1.0F / scale : 0.0F; }

double squared(float error) { return static_cast<double>(error) * static_cast<double>(error); }

double nearest_fp8(std::span<const float> row, RowBytes out) {
  out.scales[0] = to_bfloat16(largest_of(row) / kLargestFp8);
  const float scale = to_float(out.scales[0]);
  const float inverse = inverse_of(scale);
  double errors = 0.0;
  for (size_t i = 0; i < row.size(); ++i) {
    const uint8_t code = to_fp8(row[i] * inverse);
    out.codes[i] = static_cast<std::byte>(code);
    errors += squared(row[i] - fp8_value(code) * scale);
  }
  return errors;
}

double nearest_int8(std::span<const float> row, RowBytes out) {
  out.scales[0] = to_bfloat16(largest_of(row) / kLargestInt8);
  const float scale = to_float(out.scales[0]);
  const float inverse = inverse_of(scale);
  double errors = 0.0;
  for (size_t i = 0; i < row.size(); ++i) {
    const float code = std::nearbyint(std::clamp(row[i] * inverse, -kLargestInt8, kLargestInt8));
    out.codes[i] = static_cast<std::byte>(static_cast<int8_t>(code));
    errors += squared(row[i] - code * scale);
  }
  return errors;
}

// Eight codes in a little-endian word are two in each byte.
void pack_int4(std::span<const int8_t> codes, std::span<std::byte> bytes) {
  for (size_t i = 0; i < codes.size(); ++i) {
    const auto nibble = static_cast<unsigned>(codes[i] + 8);
    bytes[i / 2] |= static_cast<std::byte>(nibble << (i % 2 * 4));
  }
}

double nearest_int4(std::span<const float> row, size_t group, const float* importance,
                    RowBytes out) {
  static const FitGroup kFit = fit_group();
  std::vector<int8_t> codes(row.size());
  double errors = 0.0;
  for (size_t begin = 0; begin < row.size(); begin += group) {
    BFloat16& stored = out.scales[begin / group];
    stored =
        to_bfloat16(kFit(&row[begin], importance == nullptr ? nullptr : importance + begin, group));
    const float scale = to_float(stored);
    const float inverse = inverse_of(scale);
    for (size_t i = begin; i < begin + group; ++i) {
      const float code = std::nearbyint(std::clamp(row[i] * inverse, -8.0F, 7.0F));
      codes[i] = static_cast<int8_t>(code);
      errors += squared(row[i] - code * scale);
    }
  }
  pack_int4(codes, out.codes);
  return errors;
}

}  // namespace

RoundRow round_to_nearest(FolderScheme scheme, int64_t group,
                          const std::vector<float>* importance) {
  return [=](int64_t /*row*/, std::span<float> values, RowBytes out) {
    switch (scheme) {
      case FolderScheme::kFp8Dynamic:
        return nearest_fp8(values, out);
      case FolderScheme::kW8A8:
        return nearest_int8(values, out);
      case FolderScheme::kW4A16:
        break;
    }
    return nearest_int4(values, static_cast<size_t>(group),
                        importance == nullptr ? nullptr : importance->data(), out);
  };
}

RoundRow round_by_gptq(std::shared_ptr<const GptqFactor> factor, int64_t group) {
  return
      [factor = std::move(factor), group](int64_t /*row*/, std::span<float> values, RowBytes out) {
        const std::vector<float> wanted(values.begin(), values.end());
        std::vector<int8_t> codes(values.size());
        factor->round_row(values, group, out.scales, codes);
        pack_int4(codes, out.codes);
        double errors = 0.0;
        for (size_t i = 0; i < codes.size(); ++i) {
          const float scale = to_float(out.scales[i / static_cast<size_t>(group)]);
          errors += squared(wanted[i] - scale * static_cast<float>(codes[i]));
        }
        return errors;
      };
}

RoundRow round_by_awq(const AwqLayer& layer, formats::WeightRole role,
                      std::span<const float> products, int64_t group) {
  const std::span<const float> multiplied = layer.column_scales(role);
  const std::span<const float> divisors = layer.row_divisors(role);
  const auto rounding = std::make_shared<const AwqRounding>(products, multiplied, group);
  return [=](int64_t row, std::span<float> values, RowBytes out) {
    const float divided = divisors.empty() ? 1.0F : divisors[static_cast<size_t>(row)];
    for (size_t i = 0; i < values.size(); ++i) values[i] *= multiplied[i] / divided;
    std::vector<int8_t> codes(values.size());
    rounding->round_row(values, out.scales, codes);
    pack_int4(codes, out.codes);
    double errors = 0.0;
    for (size_t i = 0; i < codes.size(); ++i) {
      const float scale = to_float(out.scales[i / static_cast<size_t>(group)]);
      const float error = values[i] - scale * static_cast<float>(codes[i]);
      errors += squared(error / multiplied[i] * divided);
    }
    return errors;
  };
}

Result<RoundedMatrix> round_matrix(const formats::Checkpoint& checkpoint, formats::WeightId id,
                                   FolderScheme scheme, int64_t group, const RoundRow& round_row,
                                   int32_t threads) {
  const formats::TensorView& view = checkpoint.tensor(id);
  const auto rows = static_cast<size_t>(view.rows);
  const auto columns = static_cast<size_t>(view.columns);
  const bool int4 = scheme == FolderScheme::kW4A16;
  const size_t row_bytes = view.data.size() / rows;
  const size_t row_codes = int4 ? columns / 2 : columns;
  const size_t row_scales = int4 ? columns / static_cast<size_t>(group) : 1;
  RoundedMatrix matrix;
  matrix.codes.resize(rows * row_codes);
  matrix.scales.resize(rows * row_scales);
  std::vector<double> squares(rows);
  std::vector<double> errors(rows);
  std::atomic<int64_t> next{0};
  std::atomic<int64_t> bad_row{-1};
  run_on_threads(threads, [&] {
    std::vector<float> values(columns);
    for (int64_t row = next++; row < view.rows; row = next++) {
      const auto index = static_cast<size_t>(row);
      dequantize(view.type, view.data.subspan(index * row_bytes, row_bytes), values);
      for (const float value : values) squares[index] += squared(value);
      if (!std::isfinite(
              squares[index])) {  // no sum of a float's squares is too large for a double
        bad_row = row;
        continue;
      }
      errors[index] = round_row(row, values,
                                {std::span(matrix.codes).subspan(index * row_codes, row_codes),
                                 std::span(matrix.scales).subspan(index * row_scales, row_scales)});
    }
  });
  if (bad_row >= 0) {
    return Error(ErrorCode::kCorrupt, "{}: row {} of tensor {} holds a weight that is not finite",
                 checkpoint.path(), bad_row.load(), formats::in_quotes(view.name));
  }
  for (size_t i = 0; i < rows; ++i) {
    matrix.squares += squares[i];
    matrix.squared_errors += errors[i];
  }
  return matrix;
}

}  // namespace puna::quant
