#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Do running streams keep their pace while long prompts arrive? Streams decode; every few seconds a prompt of
4,000 tokens comes in. Told are the gaps between the streams' tokens, before the first such prompt and while one is
computed, and how long each took to its first token.

    bench/serve/pace.py MODEL.gguf [--streams 4] [--prompts 5] [--tpot-target 50] [--llama-server PATH] [-- flags of puna serve]
    bench/serve/pace.py random:llama-3-8b ... -- --device cuda       that shape, random weights

In turns: `puna serve`, `puna serve --no-chunk-sizing`, and llama-server when its path is given. Servers and clients
share the machine. Prompts are random token ids, so no prefix cache helps.
"""

import argparse
import asyncio
import json
import pathlib
import random
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

PUNA = pathlib.Path(__file__).parents[2] / "build/release/bin/puna"
VOCABULARY = (300, 30000)


class Server:
    """A server process on a free port, until `with` ends."""

    def __init__(self, name, command):
        self.name, self.command = name, [str(part) for part in command]

    def __enter__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen([*self.command, "--port", str(self.port)], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1)
                return self
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{self.name} did not start: {' '.join(self.command)}") from None
                time.sleep(0.05)

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def prompt_of(count, source):
    return [source.randrange(*VOCABULARY) for _ in range(count)]


async def token_times(port, prompt, tokens):
    """Yields the time of each streamed token of a completion."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    body = json.dumps({"model": "bench", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True,
                       "ignore_eos": True}).encode()
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
                 b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise RuntimeError(f"{head.decode()}{(await reader.read(2000)).decode()}")
        while line := await reader.readline():  # events lie between the chunks' size lines
            if line.startswith(b"data: [DONE]"):
                return
            if line.startswith(b"data: "):
                yield time.perf_counter()
    finally:
        writer.close()


async def stream(port, options, source, times, until):
    """One stream after the other, so that somebody always decodes; `times` holds a list for each."""
    while not until.is_set():
        own = []
        times.append(own)
        async for at in token_times(port, prompt_of(64, source), options.stream_tokens):
            own.append(at)
            if until.is_set():
                return


async def run(port, options, seed):
    source, until = random.Random(seed), asyncio.Event()
    times, busy, first_s = [], [], []
    streams = [asyncio.create_task(stream(port, options, source, times, until)) for _ in range(options.streams)]
    await asyncio.sleep(options.quiet)
    for _ in range(options.prompts):
        sent = time.perf_counter()
        async for at in token_times(port, prompt_of(options.prompt_tokens, source), 1):
            busy.append((sent, at))
            first_s.append(at - sent)
            break
        await asyncio.sleep(options.pause)
    until.set()
    for task in asyncio.as_completed(streams):
        await task
    return gaps(times, busy), first_s


def gaps(times, busy):
    """In seconds: before the first long prompt came, and those that overlap the computing of one."""
    quiet, disturbed = [], []
    for own in times:
        for before, after in zip(own, own[1:]):
            if after < busy[0][0]:
                quiet.append(after - before)
            elif any(before < end and after > begin for begin, end in busy):
                disturbed.append(after - before)
    return quiet, disturbed


def quantile(values, fraction):
    """The nearest rank, in ms."""
    if not values:
        return float("nan")
    return 1e3 * sorted(values)[max(0, -int(-fraction * len(values) // 1) - 1)]


def row(name, quiet, disturbed, first_s):
    return (f"| {name} | {quantile(quiet, 0.5):.0f} | {quantile(disturbed, 0.5):.0f} | {quantile(disturbed, 0.95):.0f} "
            f"| {quantile(disturbed, 0.99):.0f} | {quantile(disturbed, 1.0):.0f} | {quantile(first_s, 0.5) / 1e3:.2f} |")


def servers(options):
    context = options.prompt_tokens + 64 + options.stream_tokens
    slots = options.streams + 1
    kind, _, shape = options.model.partition(":")
    model = ["--random-weights", shape] if kind == "random" else ["--model", options.model]
    puna = [options.puna, "serve", *model, "--served-model-name", "bench", "--no-prefix-cache",
            "--max-num-seqs", slots, "--threads", options.threads, "--tpot-target", options.tpot_target,
            "--max-model-len", options.prompt_tokens + options.stream_tokens + 64,
            "--memory-budget", options.memory_budget, *options.flags]  # or a long prompt waits for blocks until streams end
    yield Server("Puna", puna)
    yield Server("Puna, --no-chunk-sizing", [*puna, "--no-chunk-sizing"])
    if options.llama_server:
        yield Server("llama-server", [options.llama_server, "--model", options.model, "--alias", "bench",
                                      "--threads", options.threads, "--parallel", slots, "--ctx-size",
                                      context * slots, "-fa", "on"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--puna", default=PUNA)
    parser.add_argument("--llama-server", help="its program; it runs too when given")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--stream-tokens", type=int, default=400, help="of each answer; then the next stream begins")
    parser.add_argument("--prompts", type=int, default=5, help="long ones, one after the other")
    parser.add_argument("--prompt-tokens", type=int, default=4000)
    parser.add_argument("--tpot-target", type=float, default=50, help="ms, for Puna")
    parser.add_argument("--memory-budget", default="50%", help="for Puna: room for a long prompt beside the streams")
    parser.add_argument("--quiet", type=float, default=3, help="seconds before the first long prompt")
    parser.add_argument("--pause", type=float, default=1, help="seconds between them")
    parser.add_argument("--rounds", type=int, default=1)
    own_end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:own_end])
    options.flags = sys.argv[own_end + 1:]

    print("| server | gap ms, quiet | gap ms beside a prompt: p50 | p95 | p99 | longest | prompt's first token s |\n"
          "|---|---|---|---|---|---|---|")
    for seed in range(options.rounds):
        for server in servers(options):
            with server:
                (quiet, disturbed), first_s = asyncio.run(run(server.port, options, seed))
            print(row(server.name, quiet, disturbed, first_s), flush=True)


if __name__ == "__main__":
    main()
