#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Packs vLLM for a GPU machine that reaches no network and has Python 3.12, torch 2.11 for CUDA 13 and transformers 5:
# bench/peers/vllm/pack.sh [FOLDER] (default: build/vllm) makes FOLDER/vllm.txz, about 45 MB. There:
#
#   tar xJf vllm.txz -C SITE && PYTHONPATH=SITE FOLDER_OF_PUNA/run.sh compare
#
# 0.26.0 is the newest release for torch 2.11. Left out is what dense Llama in bf16 on Hopper never loads: kernels of
# FlashAttention 2 and 4, mixtures of experts, MLA, DeepGEMM, the servers, and code for other GPUs than sm_90.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
folder="$(realpath -m "${1:-build/vllm}")"
site="$folder/site"
rm -rf "$folder"
mkdir -p "$site"

platforms=()
for version in 17 24 26 27 28 31 34 35; do platforms+=(--platform "manylinux_2_${version}_x86_64"); done
platforms+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)
python3 -m pip install -q --no-deps --no-compile --only-binary=:all: --python-version 3.12 --implementation cp \
  "${platforms[@]}" --target "$site" \
  vllm==0.26.0 annotated-types==0.8.0 apache-tvm-ffi==0.1.10 blake3==1.0.11 cachetools==8.0.1 cbor2==6.3.0 \
  compressed-tensors==0.17.0 dill==0.4.1 distro==1.9.0 email-validator==2.4.0 fastapi==0.136.3 httpcore2==2.16.2 \
  httpx2==2.16.2 ijson==3.6.0 interegular==0.3.3 jiter==0.19.0 jsonschema==4.26.0 jsonschema-specifications==2025.9.1 \
  lark==1.2.2 llguidance==1.7.6 loguru==0.7.3 mistral-common==1.13.1 msgspec==0.22.0 openai==3.54.0 \
  openai-harmony==0.0.8 partial-json-parser==0.2.1.1.post7 protobuf==6.33.6 pybase64==1.5.1 pycountry==26.2.16 \
  pydantic==2.14.3 pydantic-core==2.50.4 pydantic-extra-types==2.11.1 python-json-logger==4.2.0 \
  python-multipart==0.0.34 pyzmq==27.3.0 referencing==0.37.0 rpds-py==2026.9.1 setproctitle==1.3.8 sniffio==1.3.1 \
  starlette==1.10.0 typing-extensions==4.16.0 typing-inspection==0.4.5 xgrammar==0.2.7

(cd "$site" && rm -rf bin pycountry/locales mistral_common/data vllm/vllm-rs vllm/_moe_C*.so vllm/_flashmla*.so \
  vllm/_qutlass_C*.so vllm/vllm_flash_attn/_vllm_fa2_C*.so vllm/vllm_flash_attn/cute vllm/third_party/deep_gemm \
  vllm/third_party/fmha_sm100)
python3 bench/peers/vllm/clear_gpu_code.py "$site"/vllm/*.so "$site"/vllm/vllm_flash_attn/*.so
tar -C "$site" -cf - . | xz -T0 -6 --block-size=32MiB >"$folder/vllm.txz"
ls -l "$folder/vllm.txz"
