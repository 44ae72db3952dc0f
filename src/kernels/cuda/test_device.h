// SPDX-License-Identifier: Apache-2.0
// Arrays on the GPU for the tests of its kernels.
#pragma once

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "base/numeric.h"
#include "kernels/cuda/kv_layout.h"
#include "kernels/cuda/row_kernels.h"

namespace puna::kernels::cuda {

template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count, int poison = 0xFF) : count_(count) {
    EXPECT_EQ(cudaMalloc(&data_, count * sizeof(T)), cudaSuccess);
    EXPECT_EQ(cudaMemset(data_, poison, count * sizeof(T)), cudaSuccess);
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    EXPECT_EQ(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice),
              cudaSuccess);
  }
  ~DeviceArray() { (void)cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() { return static_cast<T*>(data_); }
  std::vector<T> values() const {
    std::vector<T> result(count_);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(result.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost),
              cudaSuccess);
    return result;
  }

 private:
  void* data_ = nullptr;
  size_t count_;
};

inline std::vector<float> normal_floats(size_t count, std::mt19937& random, float scale = 1.0F) {
  std::normal_distribution<float> normal(0.0F, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

inline std::vector<Float16> normal_halves(size_t count, std::mt19937& random, float scale = 1.0F) {
  std::vector<Float16> values;
  for (const float value : normal_floats(count, random, scale)) values.push_back(to_float16(value));
  return values;
}

inline double as_double(Float16 value) { return static_cast<double>(to_float(value)); }

// Where a column of the key or value in a cell lies among its head's cells: kv_layout.h.
inline size_t placed_column(size_t cell, size_t column, size_t head_dim) {
  constexpr auto kUnit = static_cast<size_t>(kUnitElements);
  const int32_t unit = placed_unit(static_cast<int32_t>(cell), static_cast<int32_t>(column / kUnit),
                                   static_cast<int32_t>(head_dim / kUnit));
  return static_cast<size_t>(unit) * kUnit + column % kUnit;
}

template <typename T>
bool same_bits(const T* a, const T* b, size_t count) {
  return std::memcmp(a, b, count * sizeof(T)) == 0;
}

// The same rows each time, by a kernel that lets the next one start at once and then takes far
// longer than a kernel's start: who doesn't wait for it reads what was there before.
class SlowRows {
 public:
  SlowRows(int32_t rows, int32_t columns)
      : rows_(rows),
        columns_(columns),
        residual_(random_residual(static_cast<size_t>(rows) * static_cast<size_t>(columns))),
        nothing_(static_cast<size_t>(rows) * static_cast<size_t>(columns), 0),
        ones_(std::vector<float>(static_cast<size_t>(columns), 1.0F)) {}
  void make(Float16* out) {
    add_norm({.residual = residual_.data(),
              .pieces = nothing_.data(),
              .piece_stride = 0,
              .parts = kParts,
              .row_index = nullptr,
              .weight = ones_.data(),
              .eps = 1e-5F,
              .out = out,
              .rows = rows_,
              .hidden = columns_},
             nullptr);
  }

 private:
  static constexpr int32_t kParts = 200;  // some tenths of a microsecond each
  static std::vector<float> random_residual(size_t count) {
    std::mt19937 random(7);
    return normal_floats(count, random);
  }

  int32_t rows_;
  int32_t columns_;
  DeviceArray<float> residual_;
  DeviceArray<float> nothing_;
  DeviceArray<float> ones_;
};

// What `run` returns does not depend on whether the kernel that makes its input has ended.
template <typename Run>
void expect_it_waits_for(DeviceArray<Float16>& input, int32_t rows, int32_t columns, Run run) {
  SlowRows maker(rows, columns);
  maker.make(input.data());
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  const auto wanted = run();
  const size_t count = static_cast<size_t>(rows) * static_cast<size_t>(columns);
  EXPECT_EQ(cudaMemset(input.data(), 0xFF, count * sizeof(Float16)), cudaSuccess);
  maker.make(input.data());
  const auto got = run();
  EXPECT_TRUE(same_bits(wanted.data(), got.data(), wanted.size()));
}

}  // namespace puna::kernels::cuda
