// SPDX-License-Identifier: Apache-2.0
#include "engine/time_ledger.h"

#include <algorithm>

namespace puna::engine {
namespace {

// The time since the last account, in which it held its blocks.
TimeNs take(Sequence& sequence, TimeNs now_ns) {
  const TimeNs passed_ns = now_ns - sequence.accounted_ns;
  sequence.accounted_ns = now_ns;
  sequence.channel->facts().kv_block_ns +=
      passed_ns * static_cast<int64_t>(sequence.block_table.size());
  return passed_ns;
}

}  // namespace

void account_step(Sequence& sequence, int32_t num_tokens, double others_share, TimeNs began_ns,
                  TimeNs now_ns) {
  RequestFacts& facts = sequence.channel->facts();
  const TimeNs passed_ns = take(sequence, now_ns);
  if (sequence.output_tokens() == 0) {
    facts.prefill_ns += passed_ns;
  } else if (num_tokens > 1) {  // computes again what a pause threw away
    facts.stall_ns += passed_ns;
  } else {
    const auto others_ns =
        static_cast<TimeNs>(static_cast<double>(now_ns - began_ns) * others_share);
    const TimeNs stall_ns = std::clamp<TimeNs>(others_ns, 0, passed_ns);
    facts.stall_ns += stall_ns;
    facts.decode_ns += passed_ns - stall_ns;
  }
}

void account_stall(Sequence& sequence, TimeNs now_ns) {
  sequence.channel->facts().stall_ns += take(sequence, now_ns);
}

void account_end(Sequence& sequence, TimeNs now_ns) {
  RequestFacts& facts = sequence.channel->facts();
  const TimeNs passed_ns = take(sequence, now_ns);
  (facts.first_scheduled_ns == 0 ? facts.queue_ns : facts.stall_ns) += passed_ns;
}

}  // namespace puna::engine
