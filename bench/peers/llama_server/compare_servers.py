#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`puna serve` beside llama-server on the same model: streaming clients with mixed prompts, in turns, quiet and
with a busy neighbour on one core. Writes the table of medians and ratios into docs/benchmarks.md.

  compare_servers.py MODEL.gguf [--clients 8,32] [--neighbour]        called by llama_server/compare.sh

Servers, clients and neighbour share the machine's cores; clients and load are the same for both."""

import argparse
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import clients  # noqa: E402
import peer_table  # noqa: E402

CONTEXT = 2048  # of each sequence: prompt and answer
SPIN = "import os; os.sched_setaffinity(0, {1})\nwhile True: pass"


class Server:
    """A server process on a free port, until `with` ends."""

    def __init__(self, name, command, health):
        self.name, self.command, self.health = name, [str(part) for part in command], health

    def __enter__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen([*self.command, "--port", str(self.port)], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        end = time.monotonic() + 300
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}{self.health}", timeout=5).close()
                return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"{' '.join(self.command)} did not start") from None
                time.sleep(0.1)

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def puna(arguments, count):
    return Server("Puna", [os.environ["PUNA_BINARY"], "serve", "--model", arguments.model, "--served-model-name",
                           "bench", "--max-num-seqs", count, "--max-model-len", CONTEXT, "--memory-budget",
                           arguments.memory, "--threads", arguments.threads, *arguments.puna_flag], "/ready")


def llama_server(arguments, count):
    return Server("llama-server",
                  [pathlib.Path(os.environ["LLAMA_CPP_BIN"]) / "llama-server", "-m", arguments.model, "-np", count,
                   "-c", count * CONTEXT, "-cb", "-fa", arguments.flash, "-t", arguments.threads, "-tb",
                   arguments.threads, "-b", 2048, "-ub", 512, "--cache-ram", 0, *arguments.llama_flag], "/health")


def measure(server, count, arguments, seed):
    vocabulary = (1000, 40000)
    work = clients.prompts(count * arguments.each, *arguments.lengths, seed, vocabulary)
    with server:
        clients.run(server.port, count, clients.prompts(count, 16, 64, seed + 1, vocabulary), 8)  # warm
        return clients.run(server.port, count, work, arguments.output).summary()


def compare(arguments):
    """{(clients, quiet | neighbour, server): [summary of each round]}"""
    found = {}
    for mode in ["quiet"] + ["neighbour"] * arguments.neighbour:
        for count in arguments.clients:
            for number in range(arguments.rounds):
                for make in (puna, llama_server):
                    if mode == "neighbour" and make is llama_server and number >= arguments.neighbour_rounds:
                        continue
                    spinner = subprocess.Popen([sys.executable, "-c", SPIN]) if mode == "neighbour" else None
                    server = make(arguments, count)
                    try:
                        summary = measure(server, count, arguments, seed=100 * number + count)
                    finally:
                        if spinner:
                            spinner.kill()
                            spinner.wait()
                    found.setdefault((count, mode, server.name), []).append(summary)
                    print(f"{count} clients, {mode}, round {number + 1}, {server.name}: " +
                          ", ".join(f"{key} {value:.0f}" for key, value in summary.items()), flush=True)
    return found


FIELDS = {"tokens_per_s": "output tokens/s", "ttft_ms_p50": "TTFT p50, ms", "ttft_ms_p99": "TTFT p99, ms",
          "itl_ms_p50": "ITL p50, ms", "itl_ms_p99": "ITL p99, ms"}


def render(found, arguments):
    lines = [f"{pathlib.Path(arguments.model).name}, {arguments.threads} threads; prompts of {arguments.lengths[0]} to "
             f"{arguments.lengths[1]} tokens, {arguments.output} tokens of output each, {arguments.each} requests a "
             f"client; medians of {arguments.rounds} rounds in turns. llama-server: -cb -fa {arguments.flash} -b 2048 "
             f"-ub 512 --cache-ram 0, context {CONTEXT} a slot. Clients share the cores with the servers.", "",
             "| clients | neighbour | | Puna | llama-server | ratio |", "|---|---|---|---|---|---|"]
    for count, mode in sorted({key[:2] for key in found}, key=lambda pair: (pair[1] != "quiet", pair[0])):
        for key, label in FIELDS.items():
            ours, theirs = (statistics.median(summary[key] for summary in found[count, mode, name])
                            for name in ("Puna", "llama-server"))
            busy = "one core busy" if mode == "neighbour" else "none"
            lines.append(f"| {count} | {busy} | {label} | {peer_table.number(ours)} | {peer_table.number(theirs)} | "
                         f"{ours / theirs:.2f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--clients", type=lambda text: [int(part) for part in text.split(",")], default=[8, 32])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--each", type=int, default=3, help="requests of each client in a round")
    parser.add_argument("--lengths", type=lambda text: [int(part) for part in text.split(",")], default=[50, 1500],
                        help="shortest and longest prompt, in tokens")
    parser.add_argument("--output", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", default="4GiB", help="Puna's --memory-budget")
    parser.add_argument("--flash", choices=["on", "off"], default="on", help="llama-server's -fa")
    parser.add_argument("--neighbour", action="store_true", help="the same again with a process spinning on core 1")
    parser.add_argument("--neighbour-rounds", type=int, default=1, help="llama-server's: it takes very long then")
    parser.add_argument("--puna-flag", action="append", default=[])
    parser.add_argument("--llama-flag", action="append", default=[])
    parser.add_argument("--no-table", action="store_true", help="print the table, change no file")
    arguments = parser.parse_args()
    found = compare(arguments)
    table = render(found, arguments)
    print(table)
    print(json.dumps([[*key, summaries] for key, summaries in found.items()]), file=sys.stderr)
    if not arguments.no_table:
        peer_table.write_between("servers", table)


if __name__ == "__main__":
    main()
