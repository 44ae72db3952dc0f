#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures Puna and a peer in turns on the same model files with the same threads, keeps the numbers in the
cache, and writes the table of medians and ratios into docs/benchmarks.md.

  compare.py --peer llama.cpp NAME=MODEL.gguf ...      normally called by llama_cpp/compare.sh
  compare.py --only-table                              writes the table from what was measured before

Puna is run by `puna bench engine --json`; prompts are computed alone (prefill), then 1, 8, 32 sequences with that
context decode. The peers do the same through their own benchmarks."""

import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys

import peer_table

CACHE = pathlib.Path(os.environ.get("PUNA_CACHE") or
                     pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "puna")


def run(command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return done


def cells(results):
    """{"prefill": tokens/s, "decode 1": tokens/s, ...} of results in the shape of `puna bench engine`."""
    found = {f"decode {result['batch']}": result["decode_tokens_per_s"] for result in results}
    found["prefill"] = min(results, key=lambda result: result["batch"])["prefill_tokens_per_s"]
    return found


class Puna:
    name = "Puna"

    def __init__(self, arguments):
        self.flags = ["--prompt", arguments.prompt, "--output", arguments.output, "--threads",
                      arguments.threads, "--batch", ",".join(map(str, arguments.batch)), *arguments.puna_flag]

    def measure(self, path):
        report = json.loads(run([os.environ["PUNA_BINARY"], "bench", "engine", "--model", path, "--json",
                                 *self.flags]).stdout)
        measured = cells(report["results"])
        for result in report["results"]:
            measured[f"of read {result['batch']}"] = result["fraction_of_read_bandwidth"]
        first = min(report["results"], key=lambda result: result["batch"])
        measured["of peak"] = first["prefill_fraction_of_peak"]
        return measured, {"machine": report["machine"], "peak": report["peak"], "flags": self.flags[8:]}


class LlamaCpp:
    """llama-batched-bench; prompts of a batch are equal, computed once and copied, which decodes alike."""
    name = "llama.cpp"

    def __init__(self, arguments):
        self.arguments = arguments
        self.flash = {}  # path: "on" or "off", whichever is faster

    def bench(self, path, flash, batch, output):
        most = max(batch)
        context = most * (self.arguments.prompt + output) + 256
        command = [pathlib.Path(os.environ["LLAMA_CPP_BIN"]) / "llama-batched-bench", "-m", path, "-c", context,
                   "-b", 2048, "-ub", 512, "-npp", self.arguments.prompt, "-ntg", output,
                   # The first once more: the last line may be lost when the program ends.
                   "-npl", ",".join(map(str, [*batch, batch[0]])), "-pps", "-t", self.arguments.threads,
                   "-tb", self.arguments.threads, "-fa", flash, "--output-format", "jsonl"]
        done = run(command)
        rows = [json.loads(line) for line in (done.stdout + done.stderr).splitlines() if line.startswith("{")]
        if [row["pl"] for row in rows[:len(batch)]] != list(batch):
            raise RuntimeError(f"llama-batched-bench printed {[row['pl'] for row in rows]}, not {batch}")
        return cells([{"batch": row["pl"], "prefill_tokens_per_s": row["speed_pp"],
                       "decode_tokens_per_s": row["speed_tg"]} for row in rows[:len(batch)]])

    def choose_flash(self, path):
        """Both ways on a small part of the work."""
        batch, output = self.arguments.batch[:2], min(self.arguments.output, 16)
        speed = {flash: statistics.geometric_mean(self.bench(path, flash, batch, output).values())
                 for flash in ("on", "off")}
        return max(speed, key=speed.get)

    def measure(self, path):
        if path not in self.flash:
            self.flash[path] = self.arguments.flash or self.choose_flash(path)
        measured = self.bench(path, self.flash[path], self.arguments.batch, self.arguments.output)
        return measured, {"flags": [f"-fa {self.flash[path]}", "f16 KV"]}

    def extra(self, path):
        """llama-bench's own numbers: a prompt of 512, and decoding without context."""
        rows = json.loads(run([pathlib.Path(os.environ["LLAMA_CPP_BIN"]) / "llama-bench", "-m", path, "-p", 512,
                               "-n", 64, "-r", 3, "-t", self.arguments.threads, "-fa",
                               {"on": 1, "off": 0}[self.flash[path]], "-o", "json"]).stdout)
        return {("pp512" if row["n_gen"] == 0 else "tg64"): row["avg_ts"] for row in rows}


class OpenVino:
    name = "OpenVINO"

    def __init__(self, arguments):
        self.flags = ["--prompt", arguments.prompt, "--output", arguments.output, "--threads",
                      arguments.threads, "--batch", ",".join(map(str, arguments.batch))]

    def measure(self, path):
        script = pathlib.Path(__file__).parent / "openvino" / "measure.py"
        report = json.loads(run([os.environ["OPENVINO_PYTHON"], script, path, *self.flags]).stdout.splitlines()[-1])
        return cells(report["results"]), {"flags": ["u8 KV"], "version": report["version"]}


PEERS = {peer.name: peer for peer in (LlamaCpp, OpenVino)}


def compare(arguments, store):
    """Rounds of Puna, peer, Puna, peer, ...; each cell keeps every round's number."""
    puna, peer = Puna(arguments), PEERS[arguments.peer](arguments)
    for named in arguments.models:
        name, _, path = named.partition("=")
        entry = {"file": pathlib.Path(path).name, "prompt": arguments.prompt, "output": arguments.output,
                 "threads": arguments.threads, "rounds": arguments.rounds,
                 "date": datetime.date.today().isoformat(), "sides": {}}
        for number in range(arguments.rounds):
            for side in (puna, peer):
                measured, facts = side.measure(path)
                kept = entry["sides"].setdefault(side.name, {"cells": {}})
                kept.update(facts)
                for cell, value in measured.items():
                    kept["cells"].setdefault(cell, []).append(value)
                shown = ", ".join(f"{cell} {value:.1f}" for cell, value in measured.items() if "of " not in cell)
                print(f"{name}, round {number + 1}, {side.name}: {shown}", flush=True)
        if arguments.extra and hasattr(peer, "extra"):
            entry["sides"][peer.name]["extra"] = peer.extra(path)
        store[f"{name}@{arguments.prompt} {arguments.peer}"] = entry
        save(store)


def save(store):
    path = CACHE / "peer-results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(store, indent=1), encoding="utf-8")


def load():
    path = CACHE / "peer-results.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="NAME=MODEL.gguf")
    parser.add_argument("--peer", choices=PEERS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=512, help="tokens of context before decoding")
    parser.add_argument("--output", type=int, default=64, help="decode steps")
    parser.add_argument("--batch", type=lambda text: [int(part) for part in text.split(",")], default=[1, 8, 32])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--flash", choices=["on", "off"], help="llama.cpp's -fa; default: whichever is faster")
    parser.add_argument("--extra", action="store_true", help="llama-bench's pp512 and tg64, too")
    parser.add_argument("--puna-flag", action="append", default=[], help="another flag for `puna bench engine`")
    parser.add_argument("--only-table", action="store_true")
    parser.add_argument("--no-table", action="store_true", help="print the table, change no file")
    arguments = parser.parse_args()
    store = load()
    if not arguments.only_table:
        if not arguments.peer or not arguments.models:
            parser.error("name a --peer and models")
        compare(arguments, store)
    table = peer_table.render(store)
    print(table)
    if not arguments.no_table:
        peer_table.write_between("peers", table)


if __name__ == "__main__":
    sys.exit(main())
