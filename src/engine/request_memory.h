// SPDX-License-Identifier: Apache-2.0
// Host memory of a request: its tokens, block table and channel in the engine, and its answer as
// text in the API. Claimed when it is submitted, given back when the last of it is gone, so that
// all requests together stay below EngineConfig::max_request_bytes.
//
//   auto pool = std::make_shared<std::atomic<int64_t>>(0);
//   MemoryClaim claim(pool, request_bytes(prompt, max_tokens, top_logprobs));   // gives back
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

namespace puna::engine {

// Parameters, strings, the generation's own state.
inline constexpr int64_t kBytesPerRequest = 4 << 10;
// Of the answer as JSON: a token's text, and each of its alternatives with bytes and logprob.
inline constexpr int64_t kTextBytesPerToken = 8;
inline constexpr int64_t kTextBytesPerLogprob = 128;

// At most. `top_logprobs` is -1 when none are wanted.
constexpr int64_t request_bytes(int64_t prompt_tokens, int64_t max_tokens, int32_t top_logprobs) {
  constexpr int64_t kTokenBytes = 4;  // and half of one for the block tables, here and on the host
  constexpr int64_t kEventBytes = 12;
  constexpr int64_t kAlternativeBytes = 8;
  const int64_t logprobs = top_logprobs < 0 ? 0
                                            : top_logprobs * kAlternativeBytes +
                                                  (top_logprobs + 1) * kTextBytesPerLogprob;
  return kBytesPerRequest + (prompt_tokens + max_tokens) * (kTokenBytes + 1) +
         (max_tokens + 1) * (kEventBytes + kTextBytesPerToken + logprobs);
}

class MemoryClaim {
 public:
  using Pool = std::shared_ptr<std::atomic<int64_t>>;
  MemoryClaim() = default;
  // `bytes` are in the pool's sum already.
  MemoryClaim(Pool pool, int64_t bytes) : pool_(std::move(pool)), bytes_(bytes) {}
  MemoryClaim(MemoryClaim&& other) noexcept
      : pool_(std::move(other.pool_)), bytes_(std::exchange(other.bytes_, 0)) {}
  MemoryClaim& operator=(MemoryClaim&& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~MemoryClaim() {
    if (pool_ != nullptr) pool_->fetch_sub(bytes_);
  }

 private:
  Pool pool_;
  int64_t bytes_ = 0;
};

}  // namespace puna::engine
