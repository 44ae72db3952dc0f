#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `puna serve` beside llama-server, on the real model with streaming clients. The table goes into
# docs/benchmarks.md.
#
#   bench/peers/llama_server/compare.sh -- --neighbour
#   bench/peers/llama_server/compare.sh smollm2 -- --clients 8 --rounds 1 --no-table
#
# Builds llama.cpp first; flags after -- go to compare_servers.py, `-- --help` lists them.
source "$(dirname "${BASH_SOURCE[0]}")/../peer_files.sh"

name=smollm2
if [ $# -gt 0 ] && [ "$1" != "--" ]; then name="$1"; shift; fi
[ "${1:-}" = "--" ] && shift
build_puna
build_llama_cpp
python3 "$repository/bench/peers/llama_server/compare_servers.py" "$(model "$name")" "$@"
