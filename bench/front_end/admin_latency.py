#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long the admin listener takes while the engine is saturated and long prompts are tokenised.

    PUNA_BINARY=build/release/bin/puna PUNA_TEST_MODEL=$(./dev fetch) \
        build/venv/bin/python bench/front_end/admin_latency.py
"""

import pathlib
import sys
import threading
import time

import requests

sys.path.append(str(pathlib.Path(__file__).parents[2] / "tests" / "end_to_end"))
from puna_process import MODEL_NAME, Puna  # noqa: E402

STREAMS = 32
PROMPT_TOKENS = 100_000
PROBES = 1000
PATHS = ("/health", "/ready", "/metrics", "/v1/ledger")


def keep_busy(url, body, path, over):
    with requests.Session() as session:
        while not over.is_set():
            session.post(url + path, json=body, timeout=120)


def percentile(values, share):
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def main():
    stream = {"model": MODEL_NAME, "prompt": "Once upon a time", "max_tokens": 200,
              "ignore_eos": True}
    long_prompt = {"model": MODEL_NAME, "prompt": "Once upon a time " * (PROMPT_TOKENS // 4)}
    over = threading.Event()
    with Puna("--max-model-len", 2048, "--admin-port", 0) as server:
        count = requests.post(server.url + "/tokenize", json=long_prompt, timeout=60).json()["count"]
        threads = [threading.Thread(target=keep_busy, args=(server.url, stream, "/v1/completions", over))
                   for _ in range(STREAMS)]
        threads += [threading.Thread(target=keep_busy, args=(server.url, long_prompt, "/tokenize", over))
                    for _ in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(3)
        took = {path: [] for path in PATHS}
        with requests.Session() as session:
            for i in range(PROBES):
                path = PATHS[i % len(PATHS)]
                began = time.perf_counter()
                session.get(server.admin_url + path, timeout=30)
                took[path].append(1000 * (time.perf_counter() - began))
                time.sleep(0.01)
        over.set()
        for thread in threads:
            thread.join()
    print(f"{STREAMS} streams, prompts of {count} tokens being tokenised; ms, client included")
    print(f"{'path':<12}{'p50':>8}{'p99':>8}{'max':>8}")
    for path, values in took.items():
        print(f"{path:<12}{percentile(values, .5):>8.2f}{percentile(values, .99):>8.2f}"
              f"{max(values):>8.2f}")


if __name__ == "__main__":
    main()
