# SPDX-License-Identifier: Apache-2.0
"""Clients that waste the server's time or memory; the others don't notice."""

import concurrent.futures
import socket
import time

import pytest
import requests

from http_tools import complete, connect, metric, raw_request, read_all, wait_until
from puna_process import MODEL_NAME

pytestmark = pytest.mark.hostile


def running(server):
    return metric(server, "vllm:num_requests_running")


def test_a_declared_body_of_100_mb_is_refused_unread(server):
    with connect(server) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: puna\r\n"
                           b"Content-Length: 104857600\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_100_mb_that_are_sent_anyway_take_no_memory(server, chunked):
    before = server.status_bytes("VmRSS")
    piece = b'{"prompt": "' + b"a" * (1 << 20)
    with connect(server) as connection:
        if chunked:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: puna\r\n"
                               b"Transfer-Encoding: chunked\r\n\r\n")
        else:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: puna\r\n"
                               b"Content-Length: %d\r\n\r\n" % (100 * len(piece)))
        try:
            for _ in range(100):
                connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        except OSError:
            pass  # the server hung up, as it may
        answer = read_all(connection)
    assert not answer or answer.startswith(b"HTTP/1.1 413"), answer[:200]
    assert server.status_bytes("VmRSS") - before < 64 << 20
    assert complete(server, prompt="Once upon a time")["text"]


def test_slow_headers_are_cut_off_while_others_are_served(server):
    """Slow-loris: many connections that send a byte now and then."""
    started = time.monotonic()
    slow = [connect(server, timeout=1) for _ in range(40)]
    for connection in slow:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: pu")
    open_ones = list(slow)
    while open_ones and time.monotonic() - started < 25:
        assert complete(server, prompt="Hi", max_tokens=1)
        time.sleep(0.5)
        for connection in list(open_ones):
            try:
                connection.sendall(b"n")
                connection.setblocking(False)
                if connection.recv(1000) is not None:  # an answer (408) or the end
                    open_ones.remove(connection)
            except BlockingIOError:
                connection.setblocking(True)
            except OSError:
                open_ones.remove(connection)
    assert not open_ones, f"{len(open_ones)} connections are still open after 25 s"
    for connection in slow:
        connection.close()


def test_a_slow_body_is_cut_off(server):
    with connect(server, timeout=30) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: puna\r\n"
                           b"Content-Length: 1000\r\n\r\n{")
        started = time.monotonic()
        answer = read_all(connection)
        assert time.monotonic() - started < 20
        assert not answer or answer.startswith(b"HTTP/1.1 408")


def test_a_client_that_never_reads_stops_nobody(server):
    body = {"model": MODEL_NAME, "prompt": "Once upon a time", "max_tokens": 1200, "stream": True,
            "ignore_eos": True, "logprobs": 20}  # four of 1,500 would be over the memory of requests
    mute = []
    for _ in range(4):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(server.host_and_port)
        connection.sendall(raw_request(body))
        mute.append(connection)
    assert wait_until(lambda: running(server) >= 4)
    alone = complete(server, prompt="The capital of France is", max_tokens=8)
    assert "Paris" in alone["text"]
    for connection in mute:
        connection.close()
    assert wait_until(lambda: running(server) == 0, 10), "a client that left keeps the engine busy"


def test_a_client_that_leaves_frees_its_place_at_once(server):
    cancelled = metric(server, "vllm:request_success_total", "abort")
    body = {"model": MODEL_NAME, "prompt": "Once", "max_tokens": 2000, "ignore_eos": True,
            "n": 4, "stream": True}
    with requests.post(server.url + "/v1/completions", json=body, stream=True, timeout=30) as answer:
        lines = answer.iter_lines()  # kept: an iterator that is dropped closes the connection
        next(lines)
        assert wait_until(lambda: running(server) == 4)
    assert wait_until(lambda: running(server) == 0, 5)
    assert metric(server, "vllm:kv_cache_usage_perc") == 0
    assert metric(server, "vllm:request_success_total", "abort") == cancelled + 4


def test_hundreds_of_idle_connections(server):
    idle = [connect(server) for _ in range(300)]
    assert complete(server, prompt="Hi")["text"] is not None
    for connection in idle:
        connection.close()


def test_a_storm_of_everything(server):
    """Good and bad requests, and clients that leave, at the same time: the good ones get their answer."""
    expected = complete(server, prompt="One, two, three,", max_tokens=12)["text"]

    def good(_):
        return complete(server, prompt="One, two, three,", max_tokens=12)["text"] == expected

    def bad(number):
        bodies = [b"{", b'{"prompt": 5}', b'{"model": "x", "prompt": "y"}', b"\xff" * 1000]
        answer = requests.post(server.url + "/v1/completions", data=bodies[number % 4], timeout=60)
        return answer.status_code in (400, 404)

    def leaver(_):
        with connect(server) as connection:
            connection.sendall(raw_request({"model": MODEL_NAME, "prompt": "Once", "stream": True,
                                            "max_tokens": 500, "ignore_eos": True}))
            connection.recv(10)
        return True

    jobs = [(good, bad, leaver)[i % 3] for i in range(60)]
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        assert all(pool.map(lambda item: item[1](item[0]), enumerate(jobs)))
    assert wait_until(lambda: running(server) == 0)
