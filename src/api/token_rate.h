// SPDX-License-Identifier: Apache-2.0
// How many tokens a key may use in a minute: a bucket that holds a minute's worth, is taken from
// when a request comes in and fills again evenly. The whole bucket is one number, the time at which
// it will be full, so that any thread may take from it without a lock.
//
//   TokenRate rate(60'000);
//   if (TimeNs wait_ns = rate.take(prompt + max_tokens, now_ns); wait_ns > 0) refuse(wait_ns);
//   rate.give_back(max_tokens - generated);
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

#include "base/clock.h"

namespace puna::api {

inline constexpr int64_t kMaxTokensPerMinute = 1'000'000'000;

class TokenRate {
 public:
  explicit TokenRate(int64_t tokens_per_minute) : limit_(tokens_per_minute) {}

  int64_t limit() const { return limit_; }  // tokens a minute; 0: no limit
  // Takes them all and returns 0, or takes nothing and returns when they could be had. Empty:
  // never, for the bucket does not hold so many.
  std::optional<TimeNs> take(int64_t tokens, TimeNs now_ns);
  // The same without taking them.
  std::optional<TimeNs> wait_for(int64_t tokens, TimeNs now_ns) const;
  // What was taken and not used; negative when more was used.
  void give_back(int64_t tokens);

  int64_t remaining(TimeNs now_ns) const;  // tokens that could be taken now
  TimeNs full_after(TimeNs now_ns) const;  // until the bucket is full

 private:
  TimeNs time_of(int64_t tokens) const;  // in which so many flow in

  const int64_t limit_;
  std::atomic<TimeNs> full_at_ns_{0};
};

}  // namespace puna::api
