# SPDX-License-Identifier: Apache-2.0
"""From the start to SIGTERM: times, memory, size, and a quiet end."""

import os
import signal
import threading
import time

import pytest
import requests

from http_tools import assert_error, events, metric, post, wait_until
from puna_process import MODEL_NAME, Puna, binary, model_path

BODY = {"model": MODEL_NAME, "prompt": "Once upon a time", "ignore_eos": True, "stream": True}


def open_stream(server, max_tokens):
    return requests.post(server.url + "/v1/completions", json={**BODY, "max_tokens": max_tokens},
                         stream=True, timeout=60)


def test_start_to_first_token_takes_at_most_a_second(capsys):
    best = 1e9
    for _ in range(3):  # the first one also fills the page cache
        with Puna() as server:
            with open_stream(server, 1) as answer:
                next(answer.iter_lines())
            best = min(best, time.monotonic() - server.started)
    with capsys.disabled():
        print(f"\n  start to first token: {best:.2f} s")
    assert best <= 1.0


def test_memory_stays_in_the_plan(capsys):
    with Puna("--memory-budget", "1GiB") as server:
        for _ in range(3):
            post(server, "/v1/completions", {"model": MODEL_NAME, "prompt": "Once " * 1000,
                                             "max_tokens": 8, "n": 8})
        resident = server.status_bytes("VmHWM")
        pool = metric(server, "puna:memory_bytes", "kv_pool")
        file = os.path.getsize(model_path())
    with capsys.disabled():
        print(f"\n  resident {resident / 2**20:.0f} MiB; file {file / 2**20:.0f} MiB + KV pool "
              f"{pool / 2**20:.0f} MiB: {resident / (file + pool):.2f} of them")
    assert resident <= 1.3 * (file + pool)
    assert resident <= 1 << 30, "more than --memory-budget"


def test_the_smallest_server_is_light_too(capsys):
    with Puna("--max-model-len", 2048, "--max-num-seqs", 4) as server:
        post(server, "/v1/completions", {"model": MODEL_NAME, "prompt": "Once " * 1500,
                                         "max_tokens": 8})
        resident = server.status_bytes("VmHWM")
        allowed = 1.3 * (os.path.getsize(model_path()) + metric(server, "puna:memory_bytes",
                                                                "kv_pool"))
    with capsys.disabled():
        print(f"\n  resident {resident / 2**20:.0f} MiB of {allowed / 2**20:.0f} MiB allowed")
    assert resident <= allowed


def test_the_release_binary_is_small(capsys):
    size = os.path.getsize(binary())
    with capsys.disabled():
        print(f"\n  binary: {size / 2**20:.1f} MiB")
    if "release" not in binary():
        pytest.skip("PUNA_BINARY is no release build")
    assert size <= 20_000_000


def test_sigterm_lets_running_streams_finish():
    server = Puna("--max-model-len", 1024, "--admin-port", 0)
    answer = open_stream(server, 150)
    stream = events(answer)
    texts = [next(stream)["choices"][0]["text"]]
    server.terminate()
    assert wait_until(lambda: requests.get(server.admin_url + "/ready",
                                           timeout=5).status_code == 503)
    assert requests.get(server.admin_url + "/health", timeout=5).status_code == 200
    last = None
    for last in stream:
        texts.append(last["choices"][0]["text"])
    assert last["choices"][0]["finish_reason"] == "length"
    assert len("".join(texts)) > 200
    assert server.wait() == 0, server.log_text()


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_an_idle_server_ends_at_once(which):
    server = Puna("--max-model-len", 256)
    started = time.monotonic()
    server.process.send_signal(which)
    assert server.wait() == 0
    assert time.monotonic() - started < 2


def test_new_work_is_refused_while_draining():
    server = Puna("--max-model-len", 1024)
    with requests.Session() as session:  # a connection from before
        session.get(server.url + "/health", timeout=5)
        stream = events(open_stream(server, 200))
        next(stream)
        server.terminate()
        assert wait_until(lambda: session.get(server.url + "/ready",
                                              timeout=5).status_code == 503)
        refusal = session.post(server.url + "/v1/completions", timeout=5,
                               json={"model": MODEL_NAME, "prompt": "x", "max_tokens": 1})
        assert_error(refusal, 503)
        assert len(list(stream)) > 50
    assert server.wait() == 0, server.log_text()


def test_drain_timeout_ends_what_takes_too_long():
    server = Puna("--max-model-len", 2048, "--drain-timeout", 1)
    stream = events(open_stream(server, 2000))
    next(stream)
    started = time.monotonic()
    server.terminate()
    assert server.wait() == 1
    assert time.monotonic() - started < 5
    assert "--drain-timeout" in server.log_text()
    stream.close()


def test_a_second_signal_does_not_wait():
    server = Puna("--max-model-len", 2048)
    stream = events(open_stream(server, 2000))
    next(stream)
    server.terminate()
    time.sleep(0.3)
    started = time.monotonic()
    server.terminate()
    assert server.wait() == 1
    assert time.monotonic() - started < 2
    stream.close()


def test_many_streams_drain_together():
    server = Puna("--max-model-len", 512, "--max-num-seqs", 16)
    finishes = []

    def read():
        for event in events(open_stream(server, 60)):
            if event["choices"][0]["finish_reason"]:
                finishes.append(event["choices"][0]["finish_reason"])

    readers = [threading.Thread(target=read) for _ in range(16)]
    for reader in readers:
        reader.start()
    assert wait_until(lambda: metric(server, "vllm:num_requests_running") == 16)
    server.terminate()
    for reader in readers:
        reader.join()
    assert finishes == ["length"] * 16
    assert server.wait() == 0, server.log_text()
