# SPDX-License-Identifier: Apache-2.0
"""Streaming clients in a closed loop: each sends its next completion when the last one has ended. Plain asyncio
over sockets, so that the clients take little of the CPU that they share with the server."""

import asyncio
import json
import random
import time
from dataclasses import dataclass, field


@dataclass
class Answer:
    tokens: int = 0
    refused: int = 0  # times that a 429 was waited out, as its Retry-After said
    first_s: float = 0.0  # time to the first token, from when it was first asked for
    gaps_s: list = field(default_factory=list)  # between the events that follow


@dataclass
class Load:
    answers: list
    wall_s: float

    @property
    def tokens_per_s(self):
        return sum(answer.tokens for answer in self.answers) / self.wall_s

    def summary(self):
        first = [answer.first_s for answer in self.answers]
        gaps = [gap for answer in self.answers for gap in answer.gaps_s]
        return {"tokens_per_s": self.tokens_per_s, "requests": len(self.answers),
                "refused": sum(answer.refused for answer in self.answers),
                "ttft_ms_p50": 1e3 * quantile(first, 0.5), "ttft_ms_p99": 1e3 * quantile(first, 0.99),
                "itl_ms_p50": 1e3 * quantile(gaps, 0.5), "itl_ms_p99": 1e3 * quantile(gaps, 0.99)}


def quantile(values, fraction):
    """The nearest rank."""
    return sorted(values)[max(0, -int(-fraction * len(values) // 1) - 1)]


def prompts(count, shortest, longest, seed, vocabulary):
    """Random token ids; lengths spread evenly over their logarithm, so that short ones are as common as long."""
    source = random.Random(seed)
    lengths = [round(shortest * (longest / shortest) ** source.random()) for _ in range(count)]
    return [[source.randrange(*vocabulary) for _ in range(length)] for length in lengths]


async def body_lines(reader):
    """Lines of a chunked HTTP/1.1 body."""
    pending = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        pending += (await reader.readexactly(size + 2))[:-2]
        *lines, pending = pending.split(b"\n")
        for line in lines:
            yield line
    await reader.readline()


async def ask(port, body):
    """The status, the head and the open reader and writer of one POST."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
                 b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    return int(head.split()[1]), head, reader, writer


async def complete(port, prompt, tokens):
    """One streamed completion of exactly `tokens` tokens."""
    body = json.dumps({"model": "bench", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True,
                       "ignore_eos": True, "stream_options": {"include_usage": True}}).encode()
    answer, asked = Answer(), time.perf_counter()
    status, head, reader, writer = await ask(port, body)
    while status == 429:
        writer.close()
        answer.refused += 1
        await asyncio.sleep(float(head.split("\r\nretry-after:")[1].split()[0]))
        status, head, reader, writer = await ask(port, body)
    if status != 200:
        raise RuntimeError(f"{head}{(await reader.read(2000)).decode()}")
    if "chunked" not in head:
        raise RuntimeError(f"not a chunked answer: {head}")
    last = None
    async for line in body_lines(reader):
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        event, now = json.loads(line[6:]), time.perf_counter()
        if "error" in event:
            raise RuntimeError(line.decode())
        if event.get("usage"):
            answer.tokens = event["usage"]["completion_tokens"]
        if event.get("choices") and event["choices"][0].get("finish_reason") is None:
            if last is None:
                answer.first_s = now - asked
            else:
                answer.gaps_s.append(now - last)
            last = now
    writer.close()
    if answer.tokens != tokens:
        raise RuntimeError(f"{answer.tokens} tokens came, not {tokens}")
    return answer


async def closed_loop(port, clients, work, tokens):
    """All of `work` (prompts), taken in order by `clients` clients."""
    queue, answers = iter(work), []

    async def client():
        for prompt in queue:
            answers.append(await complete(port, prompt, tokens))

    before = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return Load(answers, time.perf_counter() - before)


def run(port, clients, work, tokens):
    return asyncio.run(closed_loop(port, clients, work, tokens))
