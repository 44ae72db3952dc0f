// SPDX-License-Identifier: Apache-2.0
#include "formats/spec_check.h"

namespace puna::formats {
namespace {

Result<> check_range(const std::string& where, std::string_view what, int32_t value,
                     int32_t limit) {
  if (value >= 1 && value <= limit) return Ok{};
  return Error(ErrorCode::kCorrupt, "{}: {} is {}, it must be from 1 to {}", where, what, value,
               limit);
}

Result<> check_rope(const ModelSpec& spec, const std::string& where) {
  if (!(spec.rope_theta >= 1.0 && spec.rope_theta <= kMaxRopeTheta)) {  // also refuses NaN
    return Error(ErrorCode::kCorrupt, "{}: the RoPE base is {}, it must be from 1 to {}", where,
                 spec.rope_theta, kMaxRopeTheta);
  }
  const auto pairs = static_cast<size_t>(spec.head_dim / 2);
  if (spec.rope_divisors.size() != pairs) {
    return Error(ErrorCode::kCorrupt, "{}: {} RoPE frequency divisors, heads of {} need {}", where,
                 spec.rope_divisors.size(), spec.head_dim, pairs);
  }
  for (const float divisor : spec.rope_divisors) {
    if (!(divisor > 0.0F && divisor <= kMaxRopeDivisor)) {
      return Error(ErrorCode::kCorrupt,
                   "{}: a RoPE frequency divisor is {}, it must be above 0 and at most {}", where,
                   divisor, kMaxRopeDivisor);
    }
  }
  return Ok{};
}

}  // namespace

Result<> check_spec(const ModelSpec& spec, const std::string& where) {
  RETURN_IF_ERROR(check_range(where, "the number of layers", spec.num_layers, kMaxLayers));
  RETURN_IF_ERROR(check_range(where, "the hidden size", spec.hidden_size, kMaxHiddenSize));
  RETURN_IF_ERROR(
      check_range(where, "the feed-forward size", spec.intermediate_size, kMaxIntermediateSize));
  RETURN_IF_ERROR(check_range(where, "the number of attention heads", spec.num_heads, kMaxHeads));
  RETURN_IF_ERROR(check_range(where, "the number of KV heads", spec.num_kv_heads, kMaxHeads));
  RETURN_IF_ERROR(check_range(where, "the head size", spec.head_dim, kMaxHeadDim));
  RETURN_IF_ERROR(check_range(where, "the vocabulary size", spec.vocab_size, kMaxVocabSize));
  RETURN_IF_ERROR(check_range(where, "the context length", spec.max_position, kMaxPosition));
  if (spec.num_heads % spec.num_kv_heads != 0) {
    return Error(ErrorCode::kCorrupt, "{}: {} attention heads cannot share {} KV heads evenly",
                 where, spec.num_heads, spec.num_kv_heads);
  }
  if (spec.head_dim % 2 != 0) {
    return Error(ErrorCode::kCorrupt, "{}: the head size is {}, it must be even", where,
                 spec.head_dim);
  }
  if (!(spec.rms_norm_eps > 0.0F && spec.rms_norm_eps <= kMaxRmsNormEps)) {
    return Error(ErrorCode::kCorrupt,
                 "{}: the RMS norm epsilon is {}, it must be above 0 and at most {}", where,
                 spec.rms_norm_eps, kMaxRmsNormEps);
  }
  for (const int32_t id : spec.eos_token_ids) {
    if (id < 0 || id >= spec.vocab_size) {
      return Error(ErrorCode::kCorrupt,
                   "{}: the end-of-sequence token {} is outside the vocabulary of {}", where, id,
                   spec.vocab_size);
    }
  }
  return check_rope(spec, where);
}

}  // namespace puna::formats
