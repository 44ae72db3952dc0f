// SPDX-License-Identifier: Apache-2.0
// Any bytes as a GGUF file, and as a model: an error or a value, never a crash.
#include <cstdint>
#include <utility>

#include "base/check.h"
#include "formats/checkpoint.h"
#include "formats/gguf.h"

namespace puna::formats {
namespace {

// Reads the first and last byte of `data`, so that the sanitizer sees a span that leaves the file.
uint64_t touch(std::span<const std::byte> data) {
  return data.empty() ? 0
                      : static_cast<uint64_t>(data.front()) + static_cast<uint64_t>(data.back());
}

void fuzz(std::span<const std::byte> bytes) {
  auto parsed = GgufFile::parse(bytes, "fuzz.gguf");
  if (!parsed.ok()) return;
  uint64_t sum = 0;
  for (const auto& [key, value] : parsed->metadata()) {
    sum += key.size() + parsed->get_u64(key).value_or(0);
    if (const auto text = parsed->get_string(key)) sum += touch(std::as_bytes(std::span(*text)));
  }
  for (const GgufTensor& tensor : parsed->tensors()) {
    CHECK(parsed->find_tensor(tensor.name) == &tensor);
    sum += touch(tensor.data);
  }
  auto checkpoint = Checkpoint::from_gguf(std::move(*parsed));
  if (!checkpoint.ok()) return;
  for (int32_t layer = 0; layer < checkpoint->spec().num_layers; ++layer) {
    sum += touch(checkpoint->tensor({WeightRole::kFfnDown, layer}).data);
  }
  volatile uint64_t sink = sum;
  (void)sink;
}

}  // namespace
}  // namespace puna::formats

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  puna::formats::fuzz(std::as_bytes(std::span(data, size)));
  return 0;
}
