#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Asks a running server (`puna serve MODEL`) check items, and has puna_items score the answers.

  python3 score_with_puna.py path/to/puna_items http://127.0.0.1:8080 COUNT FAMILY:DIFFICULTY ...
"""
import json
import subprocess
import sys
import tempfile
import urllib.request
from concurrent.futures import ThreadPoolExecutor

CHECK_SEED = 20261128


def ask(url, item):
    body = {"messages": item["messages"], "temperature": 0, "max_tokens": item["max_tokens"]}
    request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(),
                                     {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        text = json.load(answer)["choices"][0]["message"]["content"]
    return dict({key: item[key] for key in ("family", "seed", "index", "difficulty")}, answer=text)


def main():
    items, url, count = sys.argv[1:4]
    asked = []
    for wanted in sys.argv[4:]:
        family, difficulty = wanted.split(":")
        lines = subprocess.run([items, "make", family, str(CHECK_SEED), count, difficulty], check=True,
                               capture_output=True, text=True).stdout.splitlines()
        asked += map(json.loads, lines)
    with ThreadPoolExecutor(16) as pool, tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        for line in pool.map(lambda item: ask(url, item), asked):
            file.write(json.dumps(line) + "\n")
        file.flush()
        subprocess.run([items, "score", file.name], check=True)


if __name__ == "__main__":
    main()
