#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# On a machine with a GPU, in a folder made by pack.sh: the tests and one summary line, or `bench`.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
export LD_LIBRARY_PATH="$PWD/lib:${LD_LIBRARY_PATH:-}"

if [ "${1:-}" = bench ]; then
  ./cuda_engine_bench 512 80 1,8,32,128,256 && ./cuda_engine_bench 7168 80 32
  exit
fi
passed=0 failed=0
for test in ./*_test; do
  log="$(mktemp)"
  "$test" --gtest_color=no | tee "$log"
  status="${PIPESTATUS[0]}"
  failures="$(grep -c '^\[  FAILED  \].* ms)$' "$log")"
  [ "$status" -eq 0 ] || [ "$failures" -gt 0 ] || failures=1  # it crashed
  passed=$((passed + $(grep -c '^\[       OK \]' "$log")))
  failed=$((failed + failures))
  rm -f "$log"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
