# SPDX-License-Identifier: Apache-2.0
"""Do GGUF files that `puna quantize` wrote load in llama.cpp, and go on the same way there as in Puna?

  pip install llama-cpp-py-sync
  PUNA_BINARY=build/release/bin/puna python bench/quantize/llama_cpp_load.py FILE.gguf ... [--tokens 24]

Both continue the same prompts greedily, with two threads and int8 activations. llama.cpp keeps keys and values in f16, Puna in
bf16, and both round: near ties may part their ways, so the table says how many texts are equal and how many characters
the others share. Exit code 1 when a file does not load or a file's texts share less than half of their characters.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import urllib.request

from llama_cpp_py_sync import Llama

PROMPTS = [
    "The capital of France is",
    "Water boils at",
    "def add(a, b):\n    return",
    "<|im_start|>user\nName three colours.<|im_end|>\n<|im_start|>assistant\n",
    "1, 2, 3, 4,",
]


def by_puna(file, tokens):
    command = [os.environ["PUNA_BINARY"], "serve", "--model", file, "--port", "0", "--max-num-seqs", "2",
               "--max-model-len", "256", "--threads", "2"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        url = None
        for line in server.stdout:
            if found := re.match(r"listening on (\S+)", line):
                url = found[1]
            if line.startswith("try: "):
                break
        return [complete(url, prompt, tokens) for prompt in PROMPTS]
    finally:
        server.terminate()
        server.wait()


def complete(url, prompt, tokens):
    body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0}
    request = urllib.request.Request(url + "/v1/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)["choices"][0]["text"]


def by_llama_cpp(file, tokens):
    with Llama(file, n_ctx=256, n_threads=2) as model:
        return [model.generate(prompt, max_tokens=tokens, temperature=0, repeat_penalty=1.0) for prompt in PROMPTS]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--tokens", type=int, default=24)
    options = parser.parse_args()
    wrong = []
    print("| file | same text | characters shared |\n|---|---|---|")
    for file in options.files:
        pairs = list(zip(by_puna(file, options.tokens), by_llama_cpp(file, options.tokens)))
        same = sum(a == b for a, b in pairs)
        shared = sum(len(os.path.commonprefix(pair)) for pair in pairs) / max(1, sum(len(a) for a, _ in pairs))
        print(f"| {os.path.basename(file)} | {same} of {len(pairs)} | {shared:.0%} |", flush=True)
        wrong += [file] * (shared < 0.5)
    if wrong:
        sys.exit(f"these differ: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
