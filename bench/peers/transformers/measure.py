#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""transformers' generate() with a static batch on the work of gpu_work.py: measure.py REPORT.json (called by
gpu_compare.py). What a batch of prompts of one length takes; loads of many lengths would be padded and are left out."""

import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import torch  # noqa: E402
import transformers  # noqa: E402
import gpu_work  # noqa: E402

STEPS = 24  # of a batch: each takes tens of milliseconds
DEVIATION = 0.02


class Engine:
    def __init__(self):
        config = transformers.LlamaConfig(**{key: value for key, value in gpu_work.SHAPE.items()
                                             if key not in ("architectures", "model_type", "torch_dtype")})
        with torch.device("meta"):
            self.model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
        rotary = type(self.model.model.rotary_emb)(config=config, device="cuda")
        self.model = self.model.to_empty(device="cuda").eval()
        self.model.model.rotary_emb = rotary
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.normal_(0, DEVIATION) if parameter.dim() > 1 else parameter.fill_(1)
        self.random = random.Random(1)

    def generate(self, batch, length, tokens):
        """Seconds of a batch's whole answers."""
        prompts = torch.tensor([gpu_work.prompt(self.random, length) for _ in range(batch)], device="cuda")
        torch.cuda.synchronize()
        began = time.perf_counter()
        out = self.model.generate(prompts, attention_mask=torch.ones_like(prompts), do_sample=False, pad_token_id=0,
                                  min_new_tokens=tokens, max_new_tokens=tokens)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        assert out.shape == (batch, length + tokens)
        return seconds


def main():
    began = time.perf_counter()
    engine = Engine()
    torch.cuda.synchronize()
    report = gpu_work.Report(sys.argv[1], f"transformers {transformers.__version__}")
    start_s = time.perf_counter() - began
    engine.generate(1, 128, 8)
    for batch, length in gpu_work.DECODE:
        first = engine.generate(batch, length, 1)
        rest = engine.generate(batch, length, 1 + STEPS) - first
        report.put_decode(batch, length, [1e3 * rest / STEPS])
    report.put("start to ready: s", round(start_s, 1))
    for length in gpu_work.FIRST_TOKEN:
        report.put_first_token(length, [1e3 * engine.generate(1, length, 1) for _ in range(3)][1:])


if __name__ == "__main__":
    main()
