// SPDX-License-Identifier: Apache-2.0
// Any bytes as a safetensors file: an error, or tensors that cover the data exactly.
#include <cstdint>

#include "base/check.h"
#include "formats/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using puna::formats::SafetensorsFile;
  using puna::formats::SafetensorsTensor;
  const auto bytes = std::as_bytes(std::span(data, size));
  auto file = SafetensorsFile::parse(bytes, "fuzz.safetensors");
  if (!file.ok()) {
    CHECK(!file.error().message().empty());
    return 0;
  }
  size_t total = 0;
  for (const SafetensorsTensor& tensor : file->tensors()) {
    CHECK(file->find(tensor.name) != nullptr);
    CHECK(tensor.data.empty() ||
          (tensor.data.data() > bytes.data() && &tensor.data.back() <= &bytes.back()));
    total += tensor.data.size();
  }
  CHECK_LT(total, size);
  return 0;
}
