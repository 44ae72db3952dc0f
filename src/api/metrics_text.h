// SPDX-License-Identifier: Apache-2.0
// /metrics: the engine's and the server's cells in Prometheus text format, under vLLM's names where
// the meaning is vLLM's, else puna:*. Reads atomics only; any thread, never waits.
#pragma once

#include <string>

#include "api/server.h"
#include "api/server_status.h"

namespace puna::api {

void append_metrics(std::string& out, const ServedModel& model, const ServerStatus& status);

}  // namespace puna::api
