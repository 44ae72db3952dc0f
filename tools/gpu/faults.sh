#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What `puna serve` does when its GPU fails, in a folder made by pack.sh on a machine with a GPU: called by run.sh.
# Prints lines as GoogleTest does. A supervisor sees /ready refused and exit code 70.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit
export LD_LIBRARY_PATH="$PWD/lib:${LD_LIBRARY_PATH:-}"
port=8097
log="$(mktemp)"
trap 'rm -f "$log" "$log.load"' EXIT

# The status of GET $1, or nothing when nobody answers.
status_of() {
  (exec 3<>"/dev/tcp/127.0.0.1/$port" && printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&3 && head -1 <&3 | cut -d' ' -f2) 2>/dev/null
}

report() {  # name, what went wrong
  local took_ms=$(((${EPOCHREALTIME/./} - began_us) / 1000))
  if [ -z "$2" ]; then
    echo "[       OK ] Faults.$1 ($took_ms ms)"
  else
    echo "[  FAILED  ] Faults.$1 ($took_ms ms)"
    echo "$2"
    cat "$log"
  fi
}

# Serves until the fault of $2 strikes among 64 streams.
strikes() {
  began_us=${EPOCHREALTIME/./}
  PUNA_CUDA_FAULT="$2" ./puna serve --random-weights llama-3-8b --device cuda --port "$port" >"$log" 2>&1 &
  local server=$! wrong="" tries=0
  until grep -q '^listening' "$log"; do
    kill -0 "$server" 2>/dev/null && [ $((tries += 1)) -lt 600 ] || { report "$1" "did not start"; return; }
    sleep 0.1
  done
  [ "$(status_of /ready)" = 200 ] || wrong="/ready was not 200 before the fault; "
  timeout 60 ./puna bench serve --url "http://127.0.0.1:$port" --endpoint completions --prompt-ids 128000 \
    --bursts 64:1000 --requests 64 --prompt-tokens 200 --output-tokens 4000 >"$log.load" 2>&1 &
  local load=$! began=$SECONDS
  while kill -0 "$server" 2>/dev/null && [ $((SECONDS - began)) -lt 60 ]; do sleep 0.1; done
  if kill -9 "$server" 2>/dev/null; then wrong+="the server went on for 60 s; "; fi
  wait "$server"
  local code=$?
  wait "$load"
  [ "$code" = 70 ] || wrong+="exit code $code; "
  [ "$(grep -c '^puna: fatal: the GPU failed in ' "$log")" = 1 ] || wrong+="no fatal line; "
  [ -z "$(status_of /ready)" ] || wrong+="/ready was answered afterwards; "
  report "$1" "$wrong"
}

strikes ARefusedLaunchEndsTheServer launch:3000
strikes ALostGpuEndsTheServer lost:3000
