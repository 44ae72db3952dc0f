#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times OpenVINO GenAI's ContinuousBatchingPipeline on a GGUF file, in the shape of `puna bench engine --json`.

  measure.py MODEL.gguf --prompt 512 --output 64 --batch 1,8,32 --threads 2

Prompts are random token ids (no chat template, no tokenizing), generation is greedy and of fixed length
(ignore_eos). Settings are OpenVINO's defaults (u8 KV cache, its own choice of arithmetic) but for the number of
threads and a step that holds a whole prompt. The first prompt only warms up."""

import argparse
import json
import statistics
import time

import numpy as np
import openvino
import openvino_genai


class Pipeline:
    """Sequences of a pipeline and the times of its steps."""

    def __init__(self, model, arguments):
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = max(512, arguments.prompt)
        scheduler.max_num_seqs = max(arguments.batch)
        scheduler.enable_prefix_caching = False
        scheduler.dynamic_split_fuse = True
        # Blocks for every sequence; generation runs on while later prompts are computed.
        positions = arguments.prompt + arguments.output + 2 * max(arguments.batch) + 32
        scheduler.num_kv_blocks = max(arguments.batch) * -(-positions // 16)
        self.pipeline = openvino_genai.ContinuousBatchingPipeline(
            model, scheduler, "CPU", {"INFERENCE_NUM_THREADS": arguments.threads})
        self.random = np.random.default_rng(0)
        self.vocab = len(self.pipeline.get_tokenizer().get_vocab())
        self.next_id = 0

    def start(self, prompt, tokens):
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = tokens
        config.ignore_eos = True
        config.do_sample = False
        config.apply_chat_template = False
        ids = self.random.integers(0, self.vocab, (1, prompt), dtype=np.int64)
        self.next_id += 1
        return self.pipeline.add_request(self.next_id, openvino.Tensor(ids), config)

    def step(self, handles):
        """Seconds of one step, and which of the sequences got a token."""
        before = time.perf_counter()
        self.pipeline.step()
        seconds = time.perf_counter() - before
        got = [handle.can_read() for handle in handles]
        for handle, ready in zip(handles, got):
            if ready:
                handle.read()
        return seconds, got

    def run(self, batch, prompt, output):
        """Seconds until every prompt gave its first token, and of the decode steps of all together."""
        handles = [self.start(prompt, output + 2 * batch + 16) for _ in range(batch)]
        started, prefill_s, steps = [False] * batch, 0.0, []
        while not all(started):
            seconds, got = self.step(handles)
            prefill_s += seconds
            started = [a or b for a, b in zip(started, got)]
        while self.pipeline.has_non_finished_requests() and len(steps) < output:
            seconds, got = self.step(handles)
            if all(got):
                steps.append(seconds)
        for handle in handles:
            handle.drop() if hasattr(handle, "drop") else handle.cancel()
        while self.pipeline.has_non_finished_requests():
            self.pipeline.step()
        return prefill_s, steps


def result(batch, arguments, prefill_s, steps):
    return {"batch": batch, "prompt": arguments.prompt, "output": len(steps),
            "prefill_tokens_per_s": batch * arguments.prompt / prefill_s,
            "decode_tokens_per_s": batch * len(steps) / sum(steps),
            "step_ms_p50": statistics.median(steps) * 1e3,
            "step_ms_p99": sorted(steps)[max(0, -(-99 * len(steps) // 100) - 1)] * 1e3}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--output", type=int, default=64)
    parser.add_argument("--batch", type=lambda text: [int(part) for part in text.split(",")],
                        default=[1, 8, 32])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    pipeline = Pipeline(arguments.model, arguments)
    pipeline.run(1, arguments.prompt, 2)
    results = []
    for batch in arguments.batch:
        results.append(result(batch, arguments, *pipeline.run(batch, arguments.prompt, arguments.output)))
    print(json.dumps({"version": openvino_genai.__version__, "results": results}))


if __name__ == "__main__":
    main()
