#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains the check model's tokenizer: byte-level BPE, digits one by one, on generated items alone.

  python3 make_tokenizer.py path/to/puna_items OUT/tokenizer.json
"""
import json
import subprocess
import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

FAMILIES = ("arithmetic", "algebra", "json_extract", "tool_call", "code", "retrieval", "format", "edit", "open_chat")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCABULARY = 2048


def texts(items, seed):
    for family in FAMILIES:
        for difficulty in (0, 1):
            if family == "retrieval" and difficulty > 0:
                continue
            lines = subprocess.run([items, "make", family, str(seed), "6000", str(difficulty), "train"],
                                   check=True, capture_output=True, text=True).stdout
            for line in lines.splitlines():
                item = json.loads(line)
                yield "user\n" + item["messages"][0]["content"]
                yield "assistant\n" + item["oracle"]


def main():
    items, out = sys.argv[1:3]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts(items, seed=1), trainer)
    tokenizer.save(out)
    print(f"{tokenizer.get_vocab_size()} tokens in {out}")


if __name__ == "__main__":
    main()
