// SPDX-License-Identifier: Apache-2.0
// ModelSpec: everything about a Llama-family model that is not a weight or a token. Read from GGUF
// metadata or from a Hugging Face config.json by Checkpoint (formats/checkpoint.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace puna::formats {

// Which elements of a head rotate together. GGUF stores attn_q/attn_k rows permuted for pairs
// (2i, 2i+1); Hugging Face pairs element i with i + head_dim/2.
enum class RopeLayout : uint8_t { kInterleaved, kHalfSplit };

// Llama 3's frequency scaling. Source: Hugging Face `rope_scaling` with rope_type "llama3".
// GGUF files carry its result instead, as divisors in the tensor `rope_freqs.weight`.
struct RopeScaling {
  float factor = 1.0F;
  float low_freq_factor = 1.0F;
  float high_freq_factor = 4.0F;
  int32_t original_max_position = 8192;
};

struct ModelSpec {
  std::string architecture;  // "llama"
  std::string name;          // human name, may be empty
  int32_t num_layers = 0;
  int32_t hidden_size = 0;
  int32_t intermediate_size = 0;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;  // divides num_heads
  int32_t head_dim = 0;      // even
  int32_t vocab_size = 0;
  int32_t max_position = 0;  // trained context, tokens
  float rms_norm_eps = 1e-5F;
  double rope_theta = 10000.0;
  bool tied_head = false;  // the output head is the token embedding
  RopeLayout rope_layout = RopeLayout::kHalfSplit;
  // head_dim / 2 divisors of the rotation frequencies: all 1 without scaling; from
  // rope_freqs.weight or computed from RopeScaling otherwise.
  std::vector<float> rope_divisors;
  std::vector<int32_t>
      eos_token_ids;  // from generation_config.json / config.json; GGUF: from the tokenizer keys

  int32_t q_size() const { return num_heads * head_dim; }
  int32_t kv_size() const { return num_kv_heads * head_dim; }
};

}  // namespace puna::formats
