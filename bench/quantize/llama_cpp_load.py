# SPDX-License-Identifier: Apache-2.0
"""Do GGUF files that `puna quantize` wrote load in llama.cpp, and mean the same there as in Puna?

  pip install llama-cpp-py-sync numpy
  PUNA_BINARY=build/release/bin/puna python bench/quantize/llama_cpp_load.py TEXT FILE.gguf ... [--tokens 64]

After each of TEXT's first tokens, llama.cpp's five likeliest next ones and their log-probabilities beside Puna's. Both round
activations to 8 bits, in their own ways, and llama.cpp keeps keys and values in f16: two right readers of one
file differ by a tenth of a nat with a model of 135M, another quantisation of the same model by more. Prints a Markdown table;
exit code 1 when a file's mean difference is over 0.3.
"""

import argparse
import os
import sys

import numpy as np
from llama_cpp_py_sync import Llama

from served import completions

LIKELIEST = 5
SAME = 0.3  # nats, in the mean


def by_llama_cpp(file, text, count):
    """(token ids of the text's beginning, after each of them {token's text: log-probability})."""
    with Llama(file, n_ctx=count + 16, n_threads=2) as model:
        ids = model.tokenize(text, add_special=False)[:count]
        tops = []
        for position, token in enumerate(ids):
            model._eval_tokens([token], position)
            pointer = model._lib.llama_get_logits_ith(model._ctx, -1)
            logits = np.array([pointer[i] for i in range(model.n_vocab)], np.float64)
            logprobs = logits - np.logaddexp.reduce(logits)
            likeliest = np.argsort(logprobs)[-LIKELIEST:]
            tops.append({model.detokenize([int(i)]): logprobs[i] for i in likeliest})
    return ids, tops


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", help="a file")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--tokens", type=int, default=64)
    options = parser.parse_args()
    with open(options.text, encoding="utf-8") as file:
        text = file.read(64 * options.tokens)
    wrong = []
    print("| file | positions | same likeliest | log-probabilities | mean difference | largest |\n|---|---|---|---|---|---|")
    for file in options.files:
        ids, theirs = by_llama_cpp(file, text, options.tokens)
        prompts = [ids[:end] for end in range(1, len(ids) + 1)]
        flags = ["--max-model-len", str(options.tokens + 16), "--threads", "2"]
        ours = [choice["logprobs"]["top_logprobs"][0]
                for choice in completions(file, flags, prompts, {"max_tokens": 1, "logprobs": 20})]
        same = sum(max(a, key=a.get) == max(b, key=b.get) for a, b in zip(theirs, ours))
        differences = [abs(a[word] - b[word]) for a, b in zip(theirs, ours) for word in a if word in b]
        mean = sum(differences) / len(differences)
        print(f"| {os.path.basename(file)} | {len(ids)} | {same / len(ids):.0%} | {len(differences)} of "
              f"{LIKELIEST * len(ids)} | {mean:.3f} | {max(differences):.2f} |", flush=True)
        if mean > SAME or len(differences) < LIKELIEST * len(ids) * 0.9:
            wrong.append(file)
    if wrong:
        sys.exit(f"these differ: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
