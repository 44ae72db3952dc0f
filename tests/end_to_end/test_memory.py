# SPDX-License-Identifier: Apache-2.0
"""The sealed ceiling: what is planned is what is taken, nothing grows, and small budgets get small limits."""

import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest
import requests

from http_tools import complete, connect, metric, metrics, post, raw_request, stream, wait_until
from puna_process import MODEL_NAME, Puna, binary, model_path, run_puna

MIB = 1 << 20
OWNERS = {"weights_mapped", "weights_packed", "kv_pool", "kv_index", "host_kv", "activations", "sampling", "requests",
          "request_bodies", "connections", "tokenizer", "threads", "runtime"}
ROOT = pathlib.Path(__file__).parents[2]


def ledger(server, url=None):
    answer = requests.get((url or server.url) + "/v1/ledger", timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.json()


def by_owner(book, field):
    return {entry["owner"]: entry[field] for entry in book["owners"]}


def plan_json(*flags):
    result = run_puna("plan", "--json", *flags)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def refused(*flags):
    result = run_puna("plan", *flags)
    assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def test_the_ledger_has_an_owner_for_every_byte():
    with Puna("--max-model-len", 512, "--admin-port", 0) as server:
        book = ledger(server)
        planned = by_owner(book, "planned_bytes")
        assert set(planned) == OWNERS
        assert sum(planned.values()) == book["planned_bytes"] <= book["budget_bytes"]
        assert book["connections"]["open"] >= 1
        assert book["allocs_after_seal"] == 0
        assert ledger(server, server.admin_url)["planned_bytes"] == book["planned_bytes"]
        values = metrics(server)
        for owner, count in planned.items():
            assert values["puna:memory_bytes"][f'{{owner="{owner}"}}'] == count
        assert set(values["puna:memory_used_bytes"]) == set(values["puna:memory_bytes"])
        table = server.log_text()
        for line in ("weights, packed", "KV pool", "request bodies", "runtime", "total", "while loading"):
            assert line in table


def test_the_ledger_follows_what_is_used():
    with Puna("--max-model-len", 512, "--max-num-seqs", 1, "--admin-port", 0) as server:
        prompt = list(range(200, 400))
        body = {"model": MODEL_NAME, "prompt": prompt, "max_tokens": 300, "ignore_eos": True, "stream": True}
        clients = [connect(server) for _ in range(3)]
        for client in clients:
            client.sendall(raw_request(body))
        assert wait_until(lambda: ledger(server, server.admin_url)["queue"]["tokens"] == 400)
        book = ledger(server, server.admin_url)
        used = by_owner(book, "used_bytes")
        assert book["queue"] == {"requests": 2, "tokens": 400, "running": 1}
        assert book["kv"]["blocks_used"] >= 13
        assert used["kv_pool"] == book["kv"]["blocks_used"] * by_owner(book, "planned_bytes")["kv_pool"] // book["kv"]["blocks"]
        assert used["requests"] > 3 * 300 * 12
        assert book["connections"]["open"] == 3
        for client in clients:
            client.close()
        assert wait_until(lambda: by_owner(ledger(server, server.admin_url), "used_bytes")["requests"] == 0)
        book = ledger(server, server.admin_url)
        assert book["kv"]["blocks_used"] == 0 and book["connections"]["open"] == 0


def test_plan_prints_what_serve_takes():
    flags = ("--model", model_path(), "--max-model-len", 1024, "--max-num-seqs", 8, "--memory-budget", "500MiB")
    planned = plan_json(*flags)
    with Puna(*flags[2:]) as server:
        book = ledger(server)
    served = by_owner(book, "planned_bytes")
    assert planned["budget_bytes"] == book["budget_bytes"]
    assert planned["kv_blocks"] == book["kv"]["blocks"]
    for owner, count in planned["owners"].items():
        assert abs(served[owner] - count) <= (2 * MIB if owner in ("runtime", "tokenizer") else 0), owner


def test_plan_needs_neither_model_nor_gpu():
    plan = plan_json("--shape", "llama-3-8b", "--device", "h100-80g", "--max-model-len", 8192)
    assert 15.9e9 < plan["owners"]["weights_packed"] < 16.2e9
    assert plan["kv_bytes_per_token"] == 128 << 10
    assert 55 <= plan["most_sequences"] <= 65
    assert 180 < plan["estimate"]["decode_tokens_per_s"] < 230
    small = plan_json("--shape", "llama-3-8b", "--device", "a100-40g", "--max-model-len", 8192)
    assert small["most_sequences"] < plan["most_sequences"]
    text = run_puna("plan", "--shape", "llama-3.2-1b", "--device", "rtx-4090").stdout
    assert "fits:" in text and "estimate" in text and "of the device" not in text.replace("(the device)", "")
    cpu = plan_json("--shape", "llama-3.2-1b", "--weights", "Q4_K", "--device", "cpu", "--memory-budget", "4GiB")
    assert cpu["total_bytes"] <= 4 << 30
    assert cpu["estimate"]["prefill_tokens_per_s"] > 0


@pytest.mark.parametrize("flags,fragments", [
    ([], ["--model", "--shape"]),
    (["--shape", "llama-9"], ["llama-9", "llama-3-8b"]),
    (["--shape", "llama-3-8b", "--device", "tpu"], ["tpu", "h100-80g"]),
    (["--shape", "llama-3-8b", "--weights", "Q9"], ["Q9", "Q4_K"]),
    (["--shape", "smollm2-135m", "--weights", "Q4_K"], ["256", "Q4_K"]),
    (["--shape", "llama-3-8b", "--device", "h100-80g", "--kv-dtype", "int8"], ["--kv-dtype"]),
    (["--shape", "llama-3-8b", "--max-model-len", "9000"], ["--max-model-len", "8192"]),
    (["--shape", "llama-3.1-70b", "--device", "a100-80g"], ["weights 131", "80.0 GiB", "--device"]),
    (["--shape", "llama-3-8b", "--memory-budget", "1GiB"], ["--memory-budget to at least"]),
    (["--shape", "llama-3-8b", "--memory-budget", "-5%"], ["--memory-budget"]),
    (["--shape", "llama-3-8b", "--memory-budget", "0"], ["--memory-budget"]),
    (["--shape", "llama-3-8b", "--max-num-seqs", "0"], ["--max-num-seqs"]),
    (["--shape", "llama-3-8b", "--max-num-seqs", "9", "--max-num-batched-tokens", "8"], ["--max-num-batched-tokens"]),
    (["/no/model.gguf"], ["/no/model.gguf"]),
    (["/no/model.gguf", "--shape", "llama-3-8b"], ["--shape"]),
], ids=lambda value: " ".join(value) if isinstance(value, list) else None)
def test_bad_plans(flags, fragments):
    line = refused(*flags)
    for fragment in fragments:
        assert fragment in line


def test_a_budget_of_ten_per_cent_over_the_file_still_serves():
    budget = os.path.getsize(model_path()) * 110 // 100
    with Puna("--memory-budget", budget) as server:
        book = ledger(server)
        assert book["planned_bytes"] <= budget
        assert "Paris" in complete(server, prompt="The capital of France is", max_tokens=8)["text"]
        for _ in range(3):
            complete(server, prompt=list(range(300, 380)), max_tokens=40, ignore_eos=True)
        assert server.status_bytes("VmRSS") <= budget + book["program_bytes"]
        assert server.status_bytes("RssAnon") <= budget
        assert server.status_bytes("VmHWM") <= budget + book["program_bytes"]


def load_fully(server, sequences, prompt_tokens, max_tokens):
    """As many requests as run at once, of full length, whole and streamed, with everything asked for."""
    def one(number):
        body = {"model": MODEL_NAME, "prompt": [(number * 7919 + i * 31) % 40000 + 100 for i in range(prompt_tokens)],
                "max_tokens": max_tokens, "ignore_eos": True, "temperature": 0.8, "top_p": 0.9, "stop": ["never so"]}
        if number % 2:
            stream(server, "/v1/completions", body)
        else:
            answer = post(server, "/v1/completions", {**body, "logprobs": 2}, timeout=300)
            assert answer.status_code == 200, answer.text
    threads = [threading.Thread(target=one, args=(number,)) for number in range(sequences)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def hold_everything(server, plan):
    """Requests, bodies and connections up to their limits, until the list is closed."""
    limit = plan["owners"]["requests"]
    request = raw_request({"model": MODEL_NAME, "prompt": [7], "max_tokens": plan["max_model_len"] - 1,
                           "ignore_eos": True, "stream": True})
    held = [connect(server)]
    held[0].sendall(request)
    assert wait_until(lambda: by_owner(ledger(server, server.admin_url), "used_bytes")["requests"] > 0)
    one = by_owner(ledger(server, server.admin_url), "used_bytes")["requests"]
    for _ in range(limit // one - 1):
        held.append(connect(server))
        held[-1].sendall(request)
    body = plan["max_body_bytes"]
    for _ in range(plan["max_total_body_bytes"] // body):
        held.append(connect(server))
        held[-1].sendall(raw_request(b" " * body)[:-1])
    while len(held) < plan["max_connections"]:
        held.append(connect(server))
    return held


@pytest.mark.parametrize("budget", ["200MiB", "450MiB"])
def test_what_is_planned_is_what_is_taken(budget):
    with Puna("--memory-budget", budget, "--admin-port", 0) as server:
        book = ledger(server)
        plan = plan_json("--model", model_path(), "--memory-budget", budget)
        # Each process measures its own heap: a block of KV more or less.
        served = requests.get(f"{server.url}/v1/models", timeout=10).json()["data"][0]["max_model_len"]
        assert abs(served - plan["max_model_len"]) <= 64
        plan["max_model_len"] = min(served, plan["max_model_len"])
        ready = server.status_bytes("VmRSS")
        each = book["kv"]["tokens"] // plan["max_num_seqs"]
        length = min(each, plan["max_model_len"])
        load_fully(server, plan["max_num_seqs"], min(length - 8, 250), 4)
        held = hold_everything(server, plan)
        assert wait_until(lambda: ledger(server, server.admin_url)["connections"]["open"] == plan["max_connections"])
        used = lambda owner: by_owner(ledger(server, server.admin_url), "used_bytes")[owner]
        assert wait_until(lambda: used("requests") > 0.8 * plan["owners"]["requests"])
        assert wait_until(lambda: used("request_bodies") > 0.7 * plan["max_total_body_bytes"])
        taken = server.status_bytes("VmRSS")
        for connection in held:
            connection.close()
        planned = book["planned_bytes"] + book["program_bytes"]
        print(f"\n{budget}: planned {planned / MIB:.1f} MiB, ready {ready / MIB:.1f}, loaded {taken / MIB:.1f}")
        assert abs(taken - planned) <= 0.03 * planned
        assert server.status_bytes("VmHWM") <= book["budget_bytes"] + book["program_bytes"]
        assert taken - ready <= 0.04 * planned  # the rest was taken before the first request
        assert wait_until(lambda: metric(server, "puna:allocs_after_seal_total") == 0)


def test_a_pool_for_n_requests_runs_n_of_full_length():
    """What is reserved for keys and values is what they take: the article's work in small, at its fullest step."""
    sequences, length = 8, 256
    with Puna("--max-model-len", length, "--max-num-seqs", sequences) as server:
        assert ledger(server)["kv"]["tokens"] == sequences * length
        seen = []  # (positions held, of those that there is room for; share of blocks held; requests that run)
        done = threading.Event()

        def watch():
            while not done.is_set():
                values = metrics(server)
                seen.append(tuple(sum(values[name].values()) for name in
                                  ("puna:tokens_in_flight", "vllm:kv_cache_usage_perc", "vllm:num_requests_running")))
        watcher = threading.Thread(target=watch)
        watcher.start()
        load_fully(server, sequences, length // 2, length // 2)
        done.set()
        watcher.join()
        positions, blocks, running = max(seen)
        print(f"\nat the fullest: {running:.0f} requests, {positions:.0f} positions, {100 * blocks:.0f} % of blocks")
        assert running == sequences
        assert positions >= 0.88 * sequences * length  # not all began in one step
        assert positions >= 0.93 * blocks * sequences * length  # a block of 16 is full but for the last one of each


def test_the_step_loop_allocates_nothing():
    with Puna("--max-model-len", 1024, "--max-num-seqs", 4) as server:
        load_fully(server, 12, 200, 30)
        complete(server, prompt="One two three", n=3, temperature=1.0, top_p=0.7, min_p=0.1, stop=["zz", "\n\n\n\n"])
        answer = post(server, "/v1/completions", {"model": MODEL_NAME, "prompt": "a", "max_tokens": 20, "logprobs": 20,
                                                  "logit_bias": {"100": -5}, "frequency_penalty": 0.5})
        assert answer.status_code in (200, 400)
        for _ in range(5):
            with connect(server) as leaving:
                leaving.sendall(raw_request({"model": MODEL_NAME, "prompt": "Once", "max_tokens": 500, "stream": True}))
                leaving.recv(100)
        late = post(server, "/v1/completions", {"model": MODEL_NAME, "prompt": "Once", "max_tokens": 500, "deadline_ms": 400})
        assert late.status_code in (200, 429)  # cut by its deadline, or known to be too late
        assert metric(server, "puna:allocs_after_seal_total") == 0
        assert ledger(server)["allocs_after_seal"] == 0


def test_memory_for_requests_is_bounded():
    with Puna("--memory-budget", "200MiB", "--max-num-seqs", 1, "--max-num-batched-tokens", 64,
              "--admin-port", 0) as server:
        length = requests.get(server.url + "/v1/models", timeout=10).json()["data"][0]["max_model_len"]
        body = {"model": MODEL_NAME, "prompt": [5], "max_tokens": length - 1, "n": 128}
        answer = post(server, "/v1/completions", body)
        assert answer.status_code == 400 and "max_tokens" in answer.text, answer.text
        used = lambda: by_owner(ledger(server, server.admin_url), "used_bytes")["requests"]
        limit = by_owner(ledger(server, server.admin_url), "planned_bytes")["requests"]
        clients, one = [], limit
        while used() + one <= limit or not clients:
            before = used()
            clients.append(connect(server))
            clients[-1].sendall(raw_request({**body, "n": 1, "ignore_eos": True, "stream": True}))
            assert wait_until(lambda: used() > before)
            one = used() - before
        refused_answer = post(server, "/v1/completions", {**body, "n": 1})
        assert refused_answer.status_code == 429, refused_answer.text
        assert "Retry-After" in refused_answer.headers
        for client in clients:
            client.close()
        assert wait_until(lambda: used() == 0)


def test_memory_stands_still():
    """The short form of bench/serve/flat_memory.py; its own limit needs a hundred thousand requests."""
    result = subprocess.run(
        [sys.executable, ROOT / "bench/serve/flat_memory.py", "--puna", binary(), "--model",
         ROOT / "tests/golden/tiny_llama_hf", "--requests", "6000", "--warm-up", "3000", "--limit", "20", "--",
         "--chat-template", "llama3"], capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
