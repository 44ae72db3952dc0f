// SPDX-License-Identifier: Apache-2.0
// What the tests of this folder read.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "formats/checkpoint.h"
#include "quant/dequant.h"

namespace puna::quant {

inline std::string golden(const std::string& name) {
  return std::string(PUNA_GOLDEN_DIR) + "/" + name;
}

inline formats::Checkpoint open(const std::string& path) {
  auto opened = formats::Checkpoint::open(path);
  EXPECT_TRUE(opened.ok()) << opened.error().message();
  return std::move(opened).value();
}

// [rows, columns]
inline std::vector<float> values_of(const formats::TensorView& view) {
  std::vector<float> values(static_cast<size_t>(view.rows * view.columns));
  dequantize(view.type, view.data, values);
  return values;
}

}  // namespace puna::quant
