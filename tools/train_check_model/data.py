# SPDX-License-Identifier: Apache-2.0
"""Training rows, made while training runs: each worker asks puna_items for items of seeds that no check uses (the word
`train` sets the top bit), tokenises them and leaves files of rows for the trainer."""
import json
import os
import random
import subprocess
import time

import numpy as np

# Rows are padded to one of these, so that the trainer compiles two shapes.
LENGTHS = (128, 256)
# How often each family and difficulty comes up.
MIX = {
    ("arithmetic", 0): 14, ("arithmetic", 1): 5,
    ("algebra", 0): 16, ("algebra", 1): 6,
    ("json_extract", 0): 12, ("json_extract", 1): 5,
    ("tool_call", 0): 12, ("tool_call", 1): 4,
    ("code", 0): 12, ("code", 1): 4,
    ("retrieval", 0): 20,
    ("format", 0): 12, ("format", 1): 4,
    ("edit", 0): 12, ("edit", 1): 5,
    ("open_chat", 0): 2, ("open_chat", 1): 1,
}
ITEMS_PER_UNIT = 40  # of MIX, in one file


def prompt_text(messages):
    text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return text + "<|im_start|>assistant\n"


def make_items(items, family, seed, count, difficulty, train):
    command = [items, "make", family, str(seed), str(count), str(difficulty)] + (["train"] if train else [])
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


def make_rows(items, tokenizer, seed, per_unit):
    """{length: (ids [rows, length] uint16, prompt lengths, whole lengths)}"""
    prompts, answers = [], []
    for (family, difficulty), units in MIX.items():
        for item in make_items(items, family, seed, units * per_unit, difficulty, train=True):
            prompts.append(prompt_text(item["messages"]))
            answers.append(item["oracle"] + "<|im_end|>")
    encoded = zip(tokenizer.encode_batch(prompts), tokenizer.encode_batch(answers))
    rows = {length: ([], [], []) for length in LENGTHS}
    for prompt, answer in encoded:
        ids = prompt.ids + answer.ids
        length = next((length for length in LENGTHS if len(ids) <= length), None)
        if length is None:
            continue
        row = np.zeros(length, np.uint16)
        row[:len(ids)] = ids
        for part, value in zip(rows[length], (row, len(prompt.ids), len(ids))):
            part.append(value)
    shuffled = {}
    for length, parts in rows.items():
        order = np.random.default_rng(seed).permutation(len(parts[1]))
        shuffled[length] = tuple(np.array(part)[order] for part in parts)
    return shuffled


def work(items, tokenizer_path, folder, worker, workers, pending, per_unit=ITEMS_PER_UNIT):
    """Until killed: file after file, as long as fewer than `pending` of this worker's are unread."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(tokenizer_path)
    number = 0
    while True:
        mine = [name for name in os.listdir(folder) if name.startswith(f"{worker}_")]
        if len(mine) >= pending:
            time.sleep(0.05)
            continue
        rows = make_rows(items, tokenizer, 1000 + number * workers + worker, per_unit)
        arrays = {f"{name}{length}": part for length, parts in rows.items()
                  for name, part in zip(("ids", "prompt", "whole"), parts)}
        np.savez(f"{folder}/tmp_{worker}.npz", **arrays)
        os.rename(f"{folder}/tmp_{worker}.npz", f"{folder}/{worker}_{number:06}.npz")
        number += 1


def batches(folder, tokens_per_batch):
    """(ids, prompt lengths, whole lengths) of one length each, in a random order, for ever."""
    left = {length: None for length in LENGTHS}
    while True:
        names = [name for name in os.listdir(folder) if name[0].isdigit()]
        if not names:
            time.sleep(0.01)
            continue
        path = f"{folder}/{random.choice(names)}"
        with np.load(path) as file:
            ready = []
            for length in LENGTHS:
                parts = [file[f"{name}{length}"] for name in ("ids", "prompt", "whole")]
                if left[length] is not None:
                    parts = [np.concatenate(pair) for pair in zip(left[length], parts)]
                size = tokens_per_batch // length
                full = len(parts[0]) // size
                ready += [tuple(part[i * size:(i + 1) * size] for part in parts) for i in range(full)]
                left[length] = [part[full * size:] for part in parts]
        os.remove(path)
        random.shuffle(ready)
        yield from ready
