#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Puna beside llama.cpp on the same files with the same threads, measured in turns. The table goes into
# docs/benchmarks.md.
#
#   bench/peers/llama_cpp/compare.sh                          # all models of the table: an hour and a half
#   bench/peers/llama_cpp/compare.sh smollm2 1b-Q4_0 -- --rounds 5 --batch 1,8
#   LLAMA_CPP_BIN=/path/to/llama.cpp/build/bin bench/peers/llama_cpp/compare.sh smollm2
#
# Builds llama.cpp (from the sdist of llama-cpp-python on PyPI) and makes the models first. Flags after -- go to
# compare.py; `-- --help` lists them.
source "$(dirname "${BASH_SOURCE[0]}")/../peer_files.sh"

names=()
while [ $# -gt 0 ] && [ "$1" != "--" ]; do names+=("$1"); shift; done
[ "${1:-}" = "--" ] && shift
[ "${#names[@]}" -gt 0 ] || names=(smollm2 1b-Q4_0 1b-Q4_K_M 1b-Q8_0 1b-BF16)
build_puna
build_llama_cpp
files=()
for name in "${names[@]}"; do files+=("$name=$(model "$name")"); done
python3 "$repository/bench/peers/compare.py" --peer llama.cpp "$@" "${files[@]}"
