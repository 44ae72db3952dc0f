// SPDX-License-Identifier: Apache-2.0
#include "engine/fair_share.h"

#include <algorithm>

#include "base/check.h"

namespace puna::engine {

FairShare::FairShare(std::span<const double> weights)
    : weights_(weights.begin(), weights.end()), cells_(weights.size() * kNumClasses) {
  CHECK(!weights_.empty());
  for (double weight : weights_) CHECK(weight > 0);
}

void FairShare::arrive(RequestClass request_class, int32_t tenant) {
  Cell& own = cell(request_class, tenant);
  int32_t& waiting = waiting_[index_of(request_class)];
  if (own.waiting++ == 0) {
    double least = -1;
    for (size_t other = 0; waiting > 0 && other < tenants(); ++other) {
      const Cell& seen = cell(request_class, static_cast<int32_t>(other));
      if (&seen == &own || seen.waiting == 0) continue;
      if (least < 0 || seen.counter < least) least = seen.counter;
    }
    if (least < 0) least = last_started_[index_of(request_class)];  // nobody else waits
    own.counter = std::max(own.counter, least);
  }
  ++waiting;
}

void FairShare::leave(RequestClass request_class, int32_t tenant) {
  CHECK_GT(cell(request_class, tenant).waiting, 0);
  --cell(request_class, tenant).waiting;
  resume(request_class);
}

void FairShare::resume(RequestClass request_class) {
  CHECK_GT(waiting_[index_of(request_class)], 0);
  if (--waiting_[index_of(request_class)] == 0) passed_over_[index_of(request_class)] = 0;
}

void FairShare::start(RequestClass request_class, int32_t tenant) {
  last_started_[index_of(request_class)] = cell(request_class, tenant).counter;
  for (size_t i = 0; i < kNumClasses; ++i) {
    if (i == index_of(request_class)) {
      passed_over_[i] = 0;
    } else if (waiting_[i] > 0) {
      ++passed_over_[i];
    }
  }
}

void FairShare::charge(RequestClass request_class, int32_t tenant, double cost) {
  cell(request_class, tenant).counter += charged(tenant, cost);
}

}  // namespace puna::engine
