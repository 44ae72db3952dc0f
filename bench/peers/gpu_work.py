# SPDX-License-Identifier: Apache-2.0
"""The work that Puna and its peers do on one GPU, so that a table's columns mean the same: Llama 3 8B's shape, random
weights in bf16, random prompts, greedy answers of fixed length. Only the standard library: it runs where a peer does."""

import json
import math
import pathlib
import random
import statistics

SHAPE = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "vocab_size": 128256, "max_position_embeddings": 8192, "rope_theta": 500000.0, "rms_norm_eps": 1e-5,
    "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "bos_token_id": 128000, "eos_token_id": 128001,
}
VOCAB = 128000  # of prompts: without the special tokens

DECODE = [(1, 512), (8, 512), (32, 512), (128, 512), (256, 512), (32, 7168)]  # sequences, tokens of each prompt
DECODE_STEPS = 80
FIRST_TOKEN = [128, 1024, 8000]  # tokens of a prompt that comes alone
FIRST_TOKEN_TIMES = 6  # of which the median counts, after two that warm up


def lognormal_lengths():
    """256 prompts' lengths: median 512, sigma 0.8, at least 16 and at most 4,096."""
    source = random.Random(0)
    return [min(max(round(math.exp(source.normalvariate(math.log(512), 0.8))), 16), 4096) for _ in range(256)]


# Requests that come all at once: name, lengths of the prompts, tokens of each answer.
LOADS = [("256 lognormal + 256", lognormal_lengths(), 256), ("32 x (7,680 + 512)", [7680] * 32, 512)]


def prompt(source, length):
    return [source.randrange(VOCAB) for _ in range(length)]


class Report:
    """What one engine did, written to `path` after each number, so that a run that is cut short leaves the rest."""

    def __init__(self, path, name):
        self.path = pathlib.Path(path)
        self.cells = {"engine": name}

    def put(self, case, value):
        self.cells[case] = value
        self.path.write_text(json.dumps(self.cells, indent=1))
        print(f"{self.cells['engine']}: {case}: {value}", flush=True)

    def put_decode(self, batch, length, step_ms):
        self.put(f"decode {batch}, {length}: step ms", round(statistics.mean(step_ms), 2))

    def put_first_token(self, length, times_ms):
        self.put(f"first token of {length:,}: ms", round(statistics.median(times_ms), 1))

    def put_load(self, name, tokens, seconds):
        self.put(f"{name}: out tokens/s", round(tokens / seconds))


def table(paths):
    """A Markdown table, one column for each report."""
    reports = [json.loads(pathlib.Path(path).read_text()) for path in paths]
    cases = list(dict.fromkeys(case for report in reports for case in report if case != "engine"))
    lines = ["| | " + " | ".join(report["engine"] for report in reports) + " |", "|---" * (len(reports) + 1) + "|"]
    for case in cases:
        values = [report.get(case, "–") for report in reports]
        lines.append(f"| {case} | " + " | ".join(f"{v:,}" if isinstance(v, (int, float)) else v for v in values) + " |")
    return "\n".join(lines)
