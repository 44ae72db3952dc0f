// SPDX-License-Identifier: Apache-2.0
// Every nanosecond of a request has one cause: queue, prefill, decode, or a stall that others
// caused. Each call accounts for the time since the last one, so the sum is the request's wall time
// by construction. Engine thread only.
#pragma once

#include "engine/sequence.h"

namespace puna::engine {

// The sequence had a row of `num_tokens` in the step [began_ns, now_ns], before its token is
// published. `others_share` of the step went to prompts of others (by the latency model).
void account_step(Sequence& sequence, int32_t num_tokens, double others_share, TimeNs began_ns,
                  TimeNs now_ns);
// It runs, but had no row in the step.
void account_stall(Sequence& sequence, TimeNs now_ns);
// It ends without a token, whatever its state.
void account_end(Sequence& sequence, TimeNs now_ns);

}  // namespace puna::engine
