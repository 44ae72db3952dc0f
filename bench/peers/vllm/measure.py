#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""vLLM's offline engine on the work of gpu_work.py: measure.py REPORT.json (called by gpu_compare.py).

Its defaults (torch.compile, CUDA graphs, async scheduling, chunked prefill) but: dummy weights, no tokenizer, prefix
caching off, a context of 8,192. No HTTP, no text: what its own server would add is not in the numbers."""

import os
import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
for variable, value in {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_DO_NOT_TRACK": "1",
                        "VLLM_PLUGINS": "", "VLLM_USE_FLASHINFER_SAMPLER": "0"}.items():
    os.environ.setdefault(variable, value)

import gpu_work  # noqa: E402


class Engine:
    def __init__(self):
        import vllm
        from vllm.sampling_params import RequestOutputKind
        self.vllm = vllm
        self.delta = RequestOutputKind.DELTA
        folder = pathlib.Path("/tmp/llama-3-8b-shape")
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(gpu_work.json.dumps(gpu_work.SHAPE))
        self.llm = vllm.LLM(model=str(folder), load_format="dummy", skip_tokenizer_init=True, dtype="bfloat16",
                            max_model_len=8192, gpu_memory_utilization=0.9, enable_prefix_caching=False, seed=0)
        self.random = random.Random(1)
        self.requests = 0

    def sampling(self, tokens, **more):
        return self.vllm.SamplingParams(temperature=0.0, ignore_eos=True, min_tokens=tokens, max_tokens=tokens,
                                        detokenize=False, **more)

    def prompt(self, length):
        return {"prompt_token_ids": gpu_work.prompt(self.random, length)}

    def decode_steps(self, batch, length, steps):
        """Seconds of each step in which all sequences got a token, as the caller sees them come."""
        engine = self.llm.llm_engine
        prompts = [self.prompt(length) for _ in range(batch)]
        for prompt in prompts:
            self.requests += 1
            engine.add_request(str(self.requests), prompt, self.sampling(steps, output_kind=self.delta))
        seconds = []
        before, was_full = 0.0, False
        while engine.has_unfinished_requests():
            tokens = [len(output.outputs[0].token_ids) for output in engine.step()]
            now = time.perf_counter()
            full = len(tokens) == batch and all(count == 1 for count in tokens)
            if full and was_full:
                seconds.append(now - before)
            if tokens:
                before, was_full = now, full
        return seconds

    def generate(self, prompts, tokens):
        """Seconds until all answers are whole."""
        began = time.perf_counter()
        outputs = self.llm.generate(prompts, self.sampling(tokens), use_tqdm=False)
        seconds = time.perf_counter() - began
        assert all(len(output.outputs[0].token_ids) == tokens for output in outputs)
        return seconds


def main():
    began = time.perf_counter()
    engine = Engine()
    report = gpu_work.Report(sys.argv[1], f"vLLM {engine.vllm.__version__}")
    start_s = time.perf_counter() - began
    engine.generate([engine.prompt(256) for _ in range(8)], 16)
    for batch in (1, 4, 16):
        engine.decode_steps(batch, 128, 16)
    # The window's mean: tokens of two steps may reach the caller together, which a median would hide.
    for batch, length in gpu_work.DECODE:
        steps = engine.decode_steps(batch, length, gpu_work.DECODE_STEPS)
        report.put_decode(batch, length, [1e3 * seconds for seconds in steps])
        print("steps counted:", len(steps))
    report.put("start to ready: s", round(start_s, 1))
    for length in gpu_work.FIRST_TOKEN:
        times = [1e3 * engine.generate([engine.prompt(length)], 1) for _ in range(gpu_work.FIRST_TOKEN_TIMES + 2)]
        report.put_first_token(length, times[2:])
    for name, lengths, output in gpu_work.LOADS:
        prompts = [engine.prompt(length) for length in lengths]
        report.put_load(name, output * len(lengths), engine.generate(prompts, output))


if __name__ == "__main__":
    main()
