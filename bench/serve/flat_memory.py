#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Does a server's resident memory stand still? Many short requests of every kind (whole and streamed answers, new
connections and kept ones, clients that leave, unknown paths, models and users, bodies that are no JSON) against a
server of its own, and VmRSS along the way.

    bench/serve/flat_memory.py --model MODEL [--requests 100000] [--warm-up 10000] [-- flags of puna serve]

Prints VmRSS every few thousand requests and the slope of a line through them after the warm-up, in MB per 100,000
requests; exit code 1 when it is above --limit. A small model is best (tests/golden/tiny_llama_hf): memory is all that
is looked at. A stopped engine allocation (puna:allocs_after_seal_total) is an error too.
"""

import argparse
import asyncio
import json
import pathlib
import random
import re
import subprocess
import sys

PUNA = pathlib.Path(__file__).parents[2] / "build/release/bin/puna"
SAMPLES = 40
MB = 1e6


class Server:
    def __init__(self, options):
        command = [options.puna, "serve", "--model", options.model, "--port", "0", *options.flags]
        self.process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)
        self.host, self.port = None, None
        for line in self.process.stdout:
            if found := re.match(r"listening on http://([\d.]+):(\d+)", line):
                self.host, self.port = found[1], int(found[2])
                break
        if self.port is None:
            raise SystemExit(f"{' '.join(map(str, command))} did not start")

    def resident(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))


class Client:
    """One client after another on one task: keeps its connection, or makes a new one."""

    def __init__(self, server, seed):
        self.server, self.random = server, random.Random(seed)
        self.reader = self.writer = None

    async def open(self):
        self.reader, self.writer = await asyncio.open_connection(self.server.host, self.server.port)

    async def close(self):
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None

    async def send(self, path, body, method="POST"):
        if self.writer is None:
            await self.open()
        number = self.random.getrandbits(64)
        self.writer.write((f"{method} {path} HTTP/1.1\r\nHost: puna\r\nX-Request-Id: r-{number:x}\r\n"
                           f"Content-Length: {len(body)}\r\n\r\n").encode() + body)
        await self.writer.drain()

    async def read_answer(self):
        head = await self.reader.readuntil(b"\r\n\r\n")
        if length := re.search(rb"content-length: (\d+)", head.lower()):
            await self.reader.readexactly(int(length[1]))
        else:
            await self.reader.readuntil(b"0\r\n\r\n")

    async def one(self):
        draw = self.random.random()
        body = {"prompt": [self.random.randrange(256) for _ in range(self.random.randrange(1, 24))],
                "max_tokens": self.random.randrange(1, 5), "seed": self.random.getrandbits(31),
                "user": f"user-{self.random.getrandbits(48):x}", "ignore_eos": True}
        leave = False
        path, method = "/v1/completions", "POST"
        if draw < 0.15:
            body.update(stream=True, max_tokens=64)
            leave = True
        elif draw < 0.35:
            body.update(stream=True)
        elif draw < 0.40:
            body.update(logprobs=3, stop=["never"], n=2)
        elif draw < 0.43:
            body.update(model=f"model-{self.random.getrandbits(48):x}")
        elif draw < 0.45:
            path = f"/no/such/{self.random.getrandbits(48):x}"
        elif draw < 0.46:
            path, method = "/metrics", "GET"
        text = json.dumps(body).encode() if method == "POST" else b""
        if 0.46 <= draw < 0.48:
            text = text[:-3]
        await self.send(path, text, method)
        if leave:
            await self.reader.readuntil(b"\r\n\r\n")
            await self.close()
            return
        await self.read_answer()
        if self.random.random() < 0.1:
            await self.close()

    async def run(self, budget):
        while budget:
            budget.pop()
            try:
                await self.one()
            except (ConnectionError, asyncio.IncompleteReadError):
                await self.close()
        await self.close()


async def get(server, path):
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: puna\r\nConnection: close\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    return answer


async def drive(server, options):
    """[(requests done, bytes)], and the metrics at the end."""
    samples, done = [], 0
    total = options.warm_up + options.requests
    step = max(options.requests // SAMPLES, 1)
    clients = [Client(server, seed) for seed in range(options.clients)]
    while done < total:
        count = min(step, total - done)
        budget = [None] * count
        await asyncio.gather(*(client.run(budget) for client in clients))
        done += count
        samples.append((done, server.resident()))
        print(f"{done:>9,} requests  {samples[-1][1] / MB:9.2f} MB", flush=True)
    return samples, await get(server, "/metrics")


def slope(points):
    """Of the least-squares line."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    return (sum((x - mean_x) * (y - mean_y) for x, y in points)
            / max(sum((x - mean_x) ** 2 for x, _ in points), 1e-9))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--puna", default=PUNA)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--warm-up", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--limit", type=float, default=1.0, help="MB per 100,000 requests")
    parser.add_argument("flags", nargs="*", help="of puna serve")
    options = parser.parse_args()

    server = Server(options)
    try:
        samples, metrics = asyncio.run(drive(server, options))
    finally:
        server.process.terminate()
        code = server.process.wait(60)
    allocations = int(re.search(r"^puna:allocs_after_seal_total (\d+)", metrics, re.M)[1])
    growth = slope([point for point in samples if point[0] >= options.warm_up]) * 1e5 / MB
    print(f"slope {growth:+.3f} MB per 100,000 requests, {allocations} allocations after the seal, "
          f"{len(metrics):,} bytes of metrics, exit code {code}")
    sys.exit(0 if growth <= options.limit and allocations == 0 and code == 0 else 1)


if __name__ == "__main__":
    main()
