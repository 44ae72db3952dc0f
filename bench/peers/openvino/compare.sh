#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Puna beside OpenVINO GenAI on the same files with the same threads, measured in turns. The numbers join
# llama.cpp's in the table of docs/benchmarks.md.
#
#   bench/peers/openvino/compare.sh                           # all models of the table
#   bench/peers/openvino/compare.sh smollm2 -- --rounds 5
#
# Installs openvino-genai from PyPI into the cache and makes the models first. OpenVINO needs a tokenizer in the
# file, so random models have SmolLM2's. Flags after -- go to compare.py; `-- --help` lists them.
source "$(dirname "${BASH_SOURCE[0]}")/../peer_files.sh"

names=()
while [ $# -gt 0 ] && [ "$1" != "--" ]; do names+=("$1"); shift; done
[ "${1:-}" = "--" ] && shift
[ "${#names[@]}" -gt 0 ] || names=(smollm2 1b-tokenizer-Q4_0)
build_puna
[ "${names[*]}" = smollm2 ] || build_llama_cpp  # for llama-quantize
files=()
for name in "${names[@]}"; do files+=("$name=$(model "$name")"); done
venv openvino "$openvino_package" numpy
OPENVINO_PYTHON="$python" python3 "$repository/bench/peers/compare.py" --peer OpenVINO "$@" "${files[@]}"
