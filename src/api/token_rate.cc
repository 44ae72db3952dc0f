// SPDX-License-Identifier: Apache-2.0
#include "api/token_rate.h"

#include <algorithm>

namespace puna::api {
namespace {

constexpr TimeNs kMinuteNs = 60 * kNsPerSecond;

}  // namespace

TimeNs TokenRate::time_of(int64_t tokens) const {
  return static_cast<TimeNs>(static_cast<double>(tokens) * static_cast<double>(kMinuteNs) /
                             static_cast<double>(limit_));
}

std::optional<TimeNs> TokenRate::take(int64_t tokens, TimeNs now_ns) {
  if (limit_ == 0) return 0;
  if (tokens > limit_) return std::nullopt;
  TimeNs full_at_ns = full_at_ns_.load(std::memory_order_relaxed);
  for (;;) {
    const TimeNs after_ns = std::max(full_at_ns, now_ns) + time_of(tokens);
    const TimeNs over_ns = after_ns - now_ns - kMinuteNs;
    if (over_ns > 0) return over_ns;
    if (full_at_ns_.compare_exchange_weak(full_at_ns, after_ns, std::memory_order_relaxed)) {
      return 0;
    }
  }
}

std::optional<TimeNs> TokenRate::wait_for(int64_t tokens, TimeNs now_ns) const {
  if (limit_ == 0) return 0;
  if (tokens > limit_) return std::nullopt;
  return std::max(full_after(now_ns) + time_of(tokens) - kMinuteNs, TimeNs{0});
}

void TokenRate::give_back(int64_t tokens) {
  if (limit_ > 0) full_at_ns_.fetch_sub(time_of(tokens), std::memory_order_relaxed);
}

int64_t TokenRate::remaining(TimeNs now_ns) const {
  if (limit_ == 0) return 0;
  const double left =
      1.0 - static_cast<double>(full_after(now_ns)) / static_cast<double>(kMinuteNs);
  return std::max(static_cast<int64_t>(left * static_cast<double>(limit_)), int64_t{0});
}

TimeNs TokenRate::full_after(TimeNs now_ns) const {
  return std::max(full_at_ns_.load(std::memory_order_relaxed) - now_ns, TimeNs{0});
}

}  // namespace puna::api
