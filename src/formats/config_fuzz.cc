// SPDX-License-Identifier: Apache-2.0
// Any bytes as a config.json: an error, or a spec whose numbers are all within their limits.
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "formats/hugging_face_config.h"
#include "formats/json_text.h"
#include "formats/spec_check.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace puna::formats;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  auto config = parse_json_object(text, "config.json", size_t{1} << 20);
  if (!config.ok()) return 0;
  auto eos = read_eos_tokens(*config, "config.json");
  auto spec = read_hugging_face_config(*config, "config.json");
  if (!spec.ok() || !eos.ok()) return 0;
  spec->eos_token_ids = *eos;
  if (!check_spec(*spec, "config.json").ok()) return 0;
  CHECK_EQ(spec->num_heads % spec->num_kv_heads, 0);
  CHECK_EQ(spec->rope_divisors.size() * 2, static_cast<size_t>(spec->head_dim));
  return 0;
}
