# SPDX-License-Identifier: Apache-2.0
"""Signals under load: SIGTERM loses no admitted request, SIGSTOP breaks no stream, SIGKILL costs a restart."""

import signal
import threading
import time

import pytest
import requests

from http_tools import events, metric, wait_until
from puna_process import MODEL_NAME, Puna

BODY = {"model": MODEL_NAME, "prompt": "Once upon a time", "ignore_eos": True}


def streamed(max_tokens):
    return {**BODY, "max_tokens": max_tokens, "stream": True,
            "stream_options": {"include_usage": True}}


class Crowd:
    """Threads that ask again and again, streaming and not, until the server takes nothing more."""

    def __init__(self, server, clients, max_tokens):
        self.url = server.url + "/v1/completions"
        self.max_tokens = max_tokens
        self.finished, self.refused, self.broken = [], [], []
        self.threads = [threading.Thread(target=self.ask, args=(i,)) for i in range(clients)]
        for thread in self.threads:
            thread.start()

    def ask(self, number):
        streams = number % 2 == 0
        body = streamed(self.max_tokens) if streams else {**BODY, "max_tokens": self.max_tokens}
        while True:
            try:
                answer = requests.post(self.url, json=body, stream=True, timeout=60)
            except requests.exceptions.ConnectionError:  # nobody listens any more: not admitted
                return
            if answer.status_code != 200:
                self.refused.append(answer.status_code)
                return
            try:
                last = list(events(answer))[-1] if streams else answer.json()
                complete = last["usage"]["completion_tokens"] == self.max_tokens
                (self.finished if complete else self.broken).append(number)
            except Exception as error:  # whatever it is, the answer was promised
                self.broken.append(repr(error))
                return

    def join(self):
        for thread in self.threads:
            thread.join()


def test_sigterm_under_load_loses_no_admitted_request():
    server = Puna("--max-model-len", 512, "--max-num-seqs", 8)
    crowd = Crowd(server, clients=24, max_tokens=40)
    assert wait_until(lambda: metric(server, "vllm:request_success_total") >= 16, timeout_s=60)
    assert metric(server, "vllm:num_requests_waiting") > 0
    server.terminate()
    crowd.join()
    assert server.wait() == 0, server.log_text()
    assert not crowd.broken
    assert len(crowd.finished) >= 24
    assert set(crowd.refused) <= {503}


@pytest.mark.hostile
def test_a_process_that_stood_still_goes_on():
    with Puna("--max-model-len", 2048) as server:
        streams = [requests.post(server.url + "/v1/completions", stream=True, timeout=60,
                                 json=streamed(200))
                   for _ in range(4)]
        started = [events(answer) for answer in streams]
        for one in started:
            next(one)
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(10)
        server.process.send_signal(signal.SIGCONT)
        for one in started:
            assert list(one)[-1]["usage"]["completion_tokens"] == 200
        assert metric(server, "puna:write_timeouts_total") == 0


def test_a_killed_server_serves_again_within_two_seconds():
    server = Puna("--max-model-len", 512)
    port = server.host_and_port[1]
    answer = requests.post(server.url + "/v1/completions", stream=True, timeout=60,
                           json={**BODY, "max_tokens": 400, "stream": True})
    next(answer.iter_lines())
    server.process.kill()
    server.process.wait()
    killed = time.monotonic()
    with Puna("--max-model-len", 512, port=port) as again:
        first = requests.post(again.url + "/v1/completions", timeout=60,
                              json={**BODY, "max_tokens": 1})
        assert first.status_code == 200
        assert time.monotonic() - killed < 2
    server.process.stdout.close()
