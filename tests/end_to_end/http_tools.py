# SPDX-License-Identifier: Apache-2.0
"""Plain HTTP for tests: JSON calls, server-sent events, raw sockets, metrics."""

import json
import re
import socket
import time

import requests

from puna_process import MODEL_NAME


def post(server, path, body, timeout=60, **options):
    return requests.post(server.url + path, json=body, timeout=timeout, **options)


def complete(server, **fields):
    """One choice of /v1/completions; fails the test when the server refuses."""
    body = {"model": MODEL_NAME, "max_tokens": 8, "temperature": 0, **fields}
    answer = post(server, "/v1/completions", body, timeout=300)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]


def events(response):
    """The JSON of each server-sent event; checks that the stream ends with [DONE]."""
    done = False
    for line in response.iter_lines():
        if not line or line.startswith(b":"):
            continue
        assert not done, "nothing may follow [DONE]"
        assert line.startswith(b"data: "), line
        data = line[len(b"data: "):]
        if data == b"[DONE]":
            done = True
            continue
        yield json.loads(data)
    assert done, "the stream did not end with [DONE]"


def stream(server, path, body, **options):
    response = requests.post(server.url + path, json={**body, "stream": True}, stream=True,
                             timeout=120, **options)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    return list(events(response))


def assert_error(answer, status, *fragments):
    """An error in OpenAI's shape that mentions every fragment."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert isinstance(error["message"], str) and error["message"]
    assert isinstance(error["type"], str)
    assert "param" in error and "code" in error
    for fragment in fragments:
        assert str(fragment) in error["message"] or str(fragment) == error["param"], answer.text
    return error


def metrics(server):
    """{name: {labels: value}} of /metrics, checking the text format on the way."""
    answer = requests.get(server.url + "/metrics", timeout=10)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    values, types = {}, {}
    for line in answer.text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name not in types, f"{name} has two TYPE lines"
            types[name] = kind
        elif line and not line.startswith("#"):
            found = re.fullmatch(r'([a-zA-Z_:][\w:]*)(\{.*\})? (\S+)', line)
            assert found, line
            values.setdefault(found[1], {})[found[2] or ""] = float(found[3])
    return values


def metric(server, name, label=""):
    """The sum of a metric's series whose labels contain `label`."""
    return sum(v for labels, v in metrics(server)[name].items() if label in labels)


def wait_until(condition, timeout_s=10, every_s=0.05):
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(every_s)
    return False


def connect(server, timeout=30):
    return socket.create_connection(server.host_and_port, timeout=timeout)


def raw_request(body, path="/v1/completions", headers=""):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = (f"POST {path} HTTP/1.1\r\nHost: puna\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n{headers}\r\n")
    return head.encode() + data


def read_all(connection):
    """Everything until the server closes; a reset counts as a close."""
    data = b""
    try:
        while piece := connection.recv(65536):
            data += piece
    except ConnectionError:
        pass
    return data
