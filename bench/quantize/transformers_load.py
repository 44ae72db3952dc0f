# SPDX-License-Identifier: Apache-2.0
"""Do folders that `puna quantize` wrote load in transformers, and mean the same there as in Puna?

  pip install torch transformers compressed-tensors accelerate
  PUNA_BINARY=build/release/bin/puna python bench/quantize/transformers_load.py FOLDER ... [--tokens 32]

Each folder is served by Puna (activations and KV in f32, so that the weights alone matter) and loaded by transformers in
f32. Both continue the same prompts greedily. Compared are the texts and, up to the first token that differs, the
log-probabilities of transformers' five likeliest tokens at each position. With an 8-bit scheme transformers rounds
activations to 8 bits as well, which Puna does not do: such a folder is compared with and without
that. Prints a Markdown table; exit code 1 when a folder's weights alone give something else.
"""

import argparse
import json
import os
import sys

import torch
from compressed_tensors.quantization import disable_quantization
from transformers import AutoModelForCausalLM, AutoTokenizer

from served import completions

PROMPTS = [
    "<|im_start|>user\nA shop has 34 apples. It sells 12 and buys 25. How many apples are there now?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "<|im_start|>user\nSolve for x: 3x + 4 = 19.<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nWrite a Python function that adds 7 to each number of a list and keeps the even ones.<|im_end|>\n"
    "<|im_start|>assistant\n",
    "<|im_start|>user\nWhich colours does a rainbow have? Answer in one line, all in capital letters.<|im_end|>\n"
    "<|im_start|>assistant\n",
    "The sum of 3 and 4 is",
]
LIKELIEST = 5
SAME_WEIGHTS = 0.01  # nats: f32 sums in another order, scales that Puna holds in float16
SAME_FP8 = 0.5  # Puna rounds fp8 times its scale to bfloat16


def served(folder, tokens):
    """Puna's continuations: a list of (text, [{token: log-probability}])."""
    choices = completions(folder, ["--activations", "float", "--kv-dtype", "f32"], PROMPTS,
                          {"max_tokens": tokens, "logprobs": 20})
    return [(choice["text"], choice["logprobs"]["top_logprobs"]) for choice in choices]


def load(folder):
    """(tokenizer, model with its weights decompressed)."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        model(torch.tensor([[1]]))  # the first pass decompresses
    return AutoTokenizer.from_pretrained(folder), model


def compared(tokenizer, model, puna, tokens):
    """(equal texts, positions, largest, mean and number of the differences of log-probabilities)."""
    same, positions, differences = 0, 0, []
    for prompt, (text, tops) in zip(PROMPTS, puna):
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
        with torch.no_grad():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False,
                                 pad_token_id=tokenizer.eos_token_id)[0]
            chosen = out[ids.shape[1]:]
            predicted = model(out[None, :-1]).logits[0, ids.shape[1] - 1:].log_softmax(-1)
        same += tokenizer.decode(chosen, skip_special_tokens=True) == text
        for row, token, top in zip(predicted, chosen, tops):
            values, likeliest = row.topk(LIKELIEST)
            for value, index in zip(values, likeliest):
                word = tokenizer.decode([index])
                if word in top:
                    differences.append(abs(value.item() - top[word]))
            positions += 1
            if max(top, key=top.get) != tokenizer.decode([token]):
                break
    return same, positions, max(differences), sum(differences) / len(differences), len(differences)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args()
    wrong = []
    print("| folder | transformers computes | same text | positions | log-probabilities | mean difference | largest |")
    print("|---|---|---|---|---|---|---|")
    for folder in options.folders:
        puna = served(folder, options.tokens)
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            groups = list(json.load(file)["quantization_config"]["config_groups"].values())
        eight_bit = any(group["input_activations"] for group in groups)
        tokenizer, model = load(folder)
        runs = ["activations in 8 bits too"] * eight_bit + ["weights alone"]
        for what in runs:
            if what == "weights alone":
                model.apply(disable_quantization)
            same, positions, largest, mean, count = compared(tokenizer, model, puna, options.tokens)
            print(f"| {os.path.basename(os.path.normpath(folder))} | {what} | {same} of {len(PROMPTS)} | {positions} "
                  f"| {count} | {mean:.1e} | {largest:.1e} |", flush=True)
        fp8 = any(group["weights"]["type"] == "float" for group in groups)
        wrong += [folder] * (largest > (SAME_FP8 if fp8 else SAME_WEIGHTS) or same < len(PROMPTS))
    if wrong:
        sys.exit(f"these differ: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
