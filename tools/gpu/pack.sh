#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the GPU tests and puna here and packs what they need on a machine with a GPU, which needs CUDA 13's
# cuBLAS and nothing else: tools/gpu/pack.sh [FOLDER] (default: build/gpu) makes that folder and FOLDER.tar.xz, of some MB.
# Then, on that machine:
#   FOLDER/run.sh            the tests, and "N passed, N failed"
#   FOLDER/run.sh ptx        the own kernels' tests from the PTX of sm_80
#   FOLDER/run.sh sanitize   small cases under compute-sanitizer
#   FOLDER/run.sh bench      decode and prefill of Llama 3 8B's shape
#   FOLDER/run.sh serve      the same model behind HTTP: first tokens, throughput, short chats
#   FOLDER/run.sh compare    Puna, vLLM (bench/peers/vllm/pack.sh) and transformers on the same work, one table
# PUNA_TEST_MODEL=FILE lets the tests compare a real model with the CPU's float reference.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
folder="${1:-build/gpu}"

cmake --preset dev-cuda >/dev/null
cmake --build build/dev-cuda --target cuda
rm -rf "$folder"
mkdir -p "$folder/lib" "$folder/tests"
cp build/dev-cuda/gpu/* build/dev-cuda/bin/puna "$folder"
cp -r tests/golden "$folder/tests/"
cp tools/gpu/run.sh tools/gpu/faults.sh "$folder"
cp -r bench/peers bench/serve "$folder/"
# Libraries that another distribution may have in another version; not the C and C++ ones, which newer ones extend.
for program in build/dev-cuda/gpu/* build/dev-cuda/bin/puna; do
  ldd "$program" | awk '$3 ~ /lib(fmt|boost|spdlog)/ {print $3}'
done | sort -u | xargs -r cp -L -t "$folder/lib"
strip --strip-debug "$folder"/cuda_* "$folder/puna"
# Each program has the same kernels: a window over all of them finds that.
tar -C "$(dirname "$folder")" -c "$(basename "$folder")" | xz --lzma2=preset=6,dict=32MiB >"$folder.tar.xz"
du -sh "$folder" "$folder.tar.xz"
