#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# On a machine with a GPU, in a folder made by pack.sh: the tests, `ptx` (the own kernels from sm_80's PTX), `sanitize`
# (kernels of small cases under compute-sanitizer), `bench`, `serve` or `compare`. Tests end with one summary line; their
# logs and that line are kept in $OUT (default: results).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit
export LD_LIBRARY_PATH="$PWD/lib:${LD_LIBRARY_PATH:-}"
shape=(--random-weights llama-3-8b --device cuda)

if [ "${1:-}" = bench ]; then
  ./puna bench engine "${shape[@]}" --output 80 --batch 1,8,32,128,256 &&
    ./puna bench engine "${shape[@]}" --output 80 --prompt 7168 --batch 32
  exit
fi
if [ "${1:-}" = serve ]; then
  log="$(mktemp)"
  ./puna serve "${shape[@]}" --port 8089 --max-queued-requests 2000 --max-queued-tokens 8000000 --no-prefix-cache \
    >"$log" 2>&1 &
  server=$!
  until grep -q '^listening' "$log"; do
    kill -0 "$server" 2>/dev/null || { cat "$log"; exit 1; }
    sleep 0.2
  done
  grep '^listening' "$log"
  load=(./puna bench serve --url http://127.0.0.1:8089 --endpoint completions --prompt-ids 128000)
  echo "one stream, 512 tokens in, 256 out"
  "${load[@]}" --requests 4 --rate 0.5 --prompt-tokens 512 --output-tokens 256
  for prompt in 128 1024 8000; do
    echo "first token of $prompt tokens, one request at a time"
    "${load[@]}" --requests 8 --rate 2 --prompt-tokens "$prompt" --output-tokens 2
  done
  echo "256 requests at once, lognormal prompts, 256 tokens out"
  "${load[@]}" --bursts 256:1000 --requests 256 --prompt-tokens lognormal:512:0.8 --output-tokens 256
  echo "32 requests of 7,680 tokens, 512 out"
  "${load[@]}" --bursts 32:1000 --requests 32 --prompt-tokens 7680 --output-tokens 512
  echo "short chats, 80 a second"
  "${load[@]}" --rate 80 --duration 10 --prompt-tokens 200 --output-tokens 128
  kill -TERM "$server"
  wait "$server"
  exit
fi
results="${OUT:-results}"
mkdir -p "$results"
if [ "${1:-}" = compare ]; then
  python3 peers/gpu_compare.py "${2:-puna,puna-batch,vllm,transformers}" --puna ./puna --results "$results"
  exit
fi
passed=0 failed=0
# run NAME COMMAND...: a program of tests
run() {
  local log="$results/$1.log" name="$1" status failures oks
  shift
  timeout 240 "$@" --gtest_color=no >"$log" 2>&1
  status=$?
  failures="$(grep -c '^\[  FAILED  \].* ms)$' "$log")"
  [ "$status" -eq 0 ] || [ "$failures" -gt 0 ] || failures=1  # it crashed
  oks="$(grep -c '^\[       OK \]' "$log")"
  echo "$name: $oks passed, $failures failed, exit code $status"
  [ "$failures" -eq 0 ] || grep -v -e '^\[ RUN' -e '^\[       OK \]' "$log" | tail -n 60
  passed=$((passed + oks))
  failed=$((failed + failures))
}
# under_sanitizer NAME KERNELS TESTS TOOL...
under_sanitizer() {
  local name="$1" kernels="$2" tests="$3" tool
  shift 3
  for tool in "$@"; do
    run "$name-$tool" compute-sanitizer --tool "$tool" --error-exitcode 9 ${kernels:+--kernel-name "kns=$kernels"} \
      ./cuda_kernels_test "--gtest_filter=$tests"
  done
}
case "${1:-}" in
  ptx)  # cuBLASLt has none
    CUDA_FORCE_PTX_JIT=1 run ptx ./cuda_kernels_test '--gtest_filter=CudaAttention.*:CudaRows.*:CudaSampling.*'
    ;;
  sanitize)
    under_sanitizer attention '' 'CudaAttention.ASmall*:CudaAttention.FewRows*' memcheck racecheck synccheck
    under_sanitizer rows '' 'CudaRows.*' memcheck racecheck
    # racecheck ends with an internal error on kernels that copy by tensor maps.
    under_sanitizer few_rows few_rows 'CudaProducts.FewRowsOfSmall*' memcheck synccheck
    under_sanitizer swiglu swiglu_gemm 'CudaProducts.TheOneKernel*' memcheck synccheck
    ;;
  *)
    for test in ./*_test ./faults.sh; do run "$(basename "$test" .sh)" "$test"; done
    ;;
esac
echo "$passed passed, $failed failed" | tee "$results/summary.txt"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
