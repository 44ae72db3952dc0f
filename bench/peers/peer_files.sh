# SPDX-License-Identifier: Apache-2.0
# Sourced by the scripts of this folder: where things are, and how the peers and the models are made. Everything
# is made once and kept under the cache (PUNA_CACHE); nothing is written into the repository.
set -euo pipefail

repository="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
cache="${PUNA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/puna}"
readonly repository cache
readonly llama_cpp_package="llama-cpp-python==0.3.36"  # its sdist carries llama.cpp's source
readonly openvino_package="openvino-genai==2026.4.1.0"

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# venv NAME PACKAGE...: a Python environment in the cache; sets `python`.
venv() {
  local folder="$cache/venv-$1"; shift
  if [ ! -f "$folder/ready" ]; then
    say "installing $*"
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check "$@"
    touch "$folder/ready"
  fi
  python="$folder/bin/python"
}

# Puna itself; sets PUNA_BINARY.
build_puna() {
  if [ -z "${PUNA_BINARY:-}" ]; then
    "$repository/dev" build release >&2
    PUNA_BINARY="$repository/build/release/bin/puna"
  fi
  export PUNA_BINARY
}

# llama.cpp for this very CPU; sets LLAMA_CPP_BIN, unless it names a build already.
build_llama_cpp() {
  if [ -z "${LLAMA_CPP_BIN:-}" ]; then
    local source="$cache/llama.cpp" work
    LLAMA_CPP_BIN="$source/build/bin"
    if [ ! -x "$LLAMA_CPP_BIN/llama-server" ]; then
      say "building llama.cpp ($llama_cpp_package)"
      command -v cmake >/dev/null && command -v ninja >/dev/null || die "please install cmake and ninja-build"
      mkdir -p "$cache"
      work="$(mktemp -d "$cache/llama.XXXXXX")"
      venv sdist scikit-build-core  # pip asks an sdist's build system for its name, even to download it
      "$python" -m pip download --quiet --disable-pip-version-check --no-deps --no-build-isolation \
        --no-binary :all: --dest "$work" "$llama_cpp_package" ||
        die "could not download $llama_cpp_package from PyPI"
      mkdir -p "$source"
      tar xzf "$work"/llama_cpp_python-*.tar.gz -C "$work" --strip-components=1
      cp -r "$work/vendor/llama.cpp/." "$source"
      rm -rf "$work"
      # GCC 12 drops most of the tile configuration, which its intrinsic reads 8 bytes of: llama.cpp then dies of SIGILL
      # on CPUs with AMX. Told that all of it is used, it works.
      sed -i 's/^\( *\)_tile_loadconfig(&tc);/\1asm volatile("" : : "r"(\&tc) : "memory");\n&/' \
        "$source/ggml/src/ggml-cpu/amx/mmq.cpp"
      cmake -S "$source" -B "$source/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF \
        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF >/dev/null
      cmake --build "$source/build" --target llama-bench llama-batched-bench llama-quantize llama-server -- --quiet
    fi
  fi
  export LLAMA_CPP_BIN
}

# random_model SHAPE TYPE [plain|tokenizer]: prints the path of a random model. `plain` has Llama 3's
# vocabulary size and no tokenizer, `tokenizer` has SmolLM2's, so that it can be served.
random_model() {
  local shape="$1" type="$2" kind="${3:-plain}" folder path f16
  local -a from=()
  folder="${PUNA_BENCH_MODELS:-$cache/models}"
  path="$folder/$shape-$type.gguf" f16="$folder/$shape-f16.gguf"
  if [ "$kind" = tokenizer ]; then
    path="$folder/$shape-tokenizer-$type.gguf" f16="$folder/$shape-tokenizer-f16.gguf"
    from=(--tokenizer-from "$("$repository/dev" fetch)")
  fi
  if [ ! -f "$path" ]; then
    mkdir -p "$folder"
    if [ ! -f "$f16" ]; then
      say "making $(basename "$f16")"
      venv gguf gguf numpy
      "$python" "$repository/bench/models/random_llama.py" "$shape" "$f16.part" ${from[@]+"${from[@]}"} >&2
      mv "$f16.part" "$f16"
    fi
    say "making $(basename "$path")"
    "$LLAMA_CPP_BIN/llama-quantize" "$f16" "$path.part" "$type" >"$path.log" 2>&1 ||
      { tail -5 "$path.log" >&2; die "llama-quantize failed"; }
    mv "$path.part" "$path"
    rm "$path.log"
  fi
  echo "$path"
}

# model NAME: prints the path of `smollm2`, `1b-Q4_0`, `8b-Q4_0`, `1b-tokenizer-Q4_0`, ...
model() {
  case "$1" in
    smollm2) "$repository/dev" fetch ;;
    *-tokenizer-*) random_model "${1%%-*}" "${1##*-}" tokenizer ;;
    *-*) random_model "${1%%-*}" "${1##*-}" ;;
    *) die "no model $1: there are smollm2 and SHAPE-TYPE, as in 1b-Q4_K_M" ;;
  esac
}
