#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long the admin listener takes while the engine is saturated and long prompts are tokenised.

    PUNA_BINARY=build/release/bin/puna PUNA_TEST_MODEL=$(./dev fetch) \
        build/venv/bin/python bench/front_end/admin_latency.py
"""

import multiprocessing
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


def ask_for_ever(url, body, path):
    with requests.Session() as session:
        while True:
            session.post(url + path, json=body, timeout=120)


def load(url, stream, long_prompt):
    """A process of its own, so that the probes don't wait for these threads' interpreter lock."""
    jobs = [(url, stream, "/v1/completions")] * STREAMS + [(url, long_prompt, "/tokenize")] * 2
    threads = [threading.Thread(target=ask_for_ever, args=job) for job in jobs]
    for thread in threads:
        thread.start()


def percentile(values, share):
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def main():
    stream = {"model": MODEL_NAME, "prompt": "Once upon a time", "max_tokens": 200,
              "ignore_eos": True}
    long_prompt = {"model": MODEL_NAME, "prompt": "Once upon a time " * (PROMPT_TOKENS // 4)}
    with Puna("--max-model-len", 2048, "--admin-port", 0) as server:
        count = requests.post(server.url + "/tokenize", json=long_prompt, timeout=60).json()["count"]
        busy = multiprocessing.Process(target=load, args=(server.url, stream, long_prompt))
        busy.start()
        time.sleep(3)
        took = {path: [] for path in PATHS}
        with requests.Session() as session:
            for i in range(PROBES):
                path = PATHS[i % len(PATHS)]
                began = time.perf_counter()
                session.get(server.admin_url + path, timeout=30)
                took[path].append(1000 * (time.perf_counter() - began))
                time.sleep(0.01)
        busy.kill()
        busy.join()
    print(f"{STREAMS} streams, prompts of {count} tokens being tokenised; ms, client included")
    print(f"{'path':<12}{'p50':>8}{'p99':>8}{'max':>8}")
    for path, values in took.items():
        print(f"{path:<12}{percentile(values, .5):>8.2f}{percentile(values, .99):>8.2f}"
              f"{max(values):>8.2f}")


if __name__ == "__main__":
    main()
