#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Puna's tokenizer against Hugging Face tokenizers (Rust) and tiktoken, one thread each, in turns.

  compare_tokenizer_speed.py --bench build/release/src/model/tokenizer_bench --text FILE
      --json tokenizer.json [--meta tokenizer.model] [--rounds 5]

Prints MB/s (1e6 bytes), the best and the median over the rounds; a round runs each of them once. Lines are encoded
one by one; the Python loops' own time counts for the Python packages, encode_batch_fast has none.
"""
import argparse
import os
import pathlib
import re
import statistics
import subprocess
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

import tiktoken  # noqa: E402: the variables above must be set first
import tiktoken.load  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def puna(program, tokenizer, text, kind):
    output = subprocess.run([program, tokenizer, text, "1"], check=True, capture_output=True, text=True).stdout
    return float(re.search(rf"{kind}: .*best ([0-9.]+) MB/s", output)[1])


def timed(size, action):
    begin = time.perf_counter()
    action()
    return size / 1e6 / (time.perf_counter() - begin)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("--bench", "--text", "--json"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--meta")
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    text = pathlib.Path(flags.text).read_bytes().decode()
    lines = text.splitlines(keepends=True)
    size = len(text.encode())
    rust = Tokenizer.from_file(flags.json)
    runs = {
        "puna, lines": lambda: puna(flags.bench, flags.json, flags.text, "lines"),
        "puna, whole text": lambda: puna(flags.bench, flags.json, flags.text, "whole"),
        "tokenizers encode_batch_fast, lines": lambda: timed(
            size, lambda: rust.encode_batch_fast(lines, add_special_tokens=False)),
        "tokenizers encode, whole text": lambda: timed(size, lambda: rust.encode(text, add_special_tokens=False)),
    }
    if flags.meta:
        ranks = tiktoken.load.load_tiktoken_bpe(flags.meta)
        tik = tiktoken.Encoding("llama3", pat_str=LLAMA3, mergeable_ranks=ranks, special_tokens={})
        runs["tiktoken encode_ordinary, lines"] = lambda: timed(size, lambda: [tik.encode_ordinary(x) for x in lines])
    results = {name: [] for name in runs}
    for _ in range(flags.rounds):
        for name, run in runs.items():
            results[name].append(run())
    for name, speeds in results.items():
        print(f"{name:38} best {max(speeds):7.2f} MB/s   median {statistics.median(speeds):7.2f} MB/s")


if __name__ == "__main__":
    main()
