# SPDX-License-Identifier: Apache-2.0
"""Whatever is wrong with a request, the answer says what, in OpenAI's shape, and nothing breaks."""

import json

import pytest
import requests

from http_tools import assert_error, complete, connect, post, raw_request, read_all
from puna_process import MODEL_NAME

PROMPT = {"model": MODEL_NAME, "prompt": "Hi", "max_tokens": 1}
CHAT = {"model": MODEL_NAME, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}

OUT_OF_RANGE = [
    ("temperature", [-0.1, 101, 1e300, -1e300]),
    ("top_p", [0, -0.5, 1.01]),
    ("min_p", [-0.1, 1.1]),
    ("top_k", [-2, 2**40]),
    ("repetition_penalty", [0, -1, 10.5]),
    ("frequency_penalty", [-2.1, 2.1]),
    ("presence_penalty", [-2.1, 2.1]),
    ("max_tokens", [0, -1, 2**31, 2**62, 1.5]),
    ("min_tokens", [-1, 2**40]),
    ("n", [0, -1, 129, 2**40]),
    ("seed", [1.5, 1e40]),
    ("stop", [["x"] * 17, ["x" * 5000], [""]]),
    ("stop_token_ids", [[-1], [49152], [2**40], [1.5]]),
    ("logit_bias", [{"0": 101}, {"0": -101}, {"49152": 1}, {"-1": 1}, {"x": 1}]),
]
WRONG_TYPES = ["text", True, [1], {"a": 1}]


@pytest.mark.parametrize("field,values", OUT_OF_RANGE, ids=[row[0] for row in OUT_OF_RANGE])
@pytest.mark.parametrize("path,body", [("/v1/completions", PROMPT), ("/v1/chat/completions", CHAT)],
                         ids=["completions", "chat"])
def test_out_of_range(server, path, body, field, values):
    for value in values:
        answer = post(server, path, {**body, field: value})
        assert answer.status_code == 400, (field, value, answer.text)
        error = assert_error(answer, 400, field)
        assert error["param"].startswith(field), error


@pytest.mark.parametrize("field", [row[0] for row in OUT_OF_RANGE] + ["stream", "stream_options",
                                                                    "ignore_eos", "model"])
def test_wrong_types(server, field):
    for value in WRONG_TYPES:
        if (field, value) in [("model", "text"), ("stop", "text"), ("stream", True),
                              ("ignore_eos", True), ("stream_options", {"a": 1})]:
            continue
        if field == "stop_token_ids" and value == [1]:
            continue
        answer = post(server, "/v1/completions", {**PROMPT, field: value})
        assert answer.status_code == 400, (field, value, answer.text)
        assert_error(answer, 400, field)


@pytest.mark.parametrize("fields", [{"logprobs": 21}, {"logprobs": -1}, {"prompt": 5},
                                    {"prompt": []}, {"prompt": [[]]}, {"prompt": [1, "a"]},
                                    {"prompt": [-1]}, {"prompt": [49152]}, {"prompt": [2**40]},
                                    {"prompt": {"a": 1}}, {"prompt": ["a"] * 2000},
                                    {"prompt": ["a"] * 1024, "n": 128}],
                         ids=lambda fields: json.dumps(fields)[:40])
def test_bad_completions(server, fields):
    assert_error(post(server, "/v1/completions", {**PROMPT, **fields}), 400, next(iter(fields)))


@pytest.mark.parametrize("messages", [[], "hi", [5], [{"role": "user"}], [{"content": "x"}],
                                      [{"role": "wizard", "content": "x"}],
                                      [{"role": "user", "content": 5}],
                                      [{"role": "user", "content": [{"type": "image_url"}]}],
                                      [{"role": "user", "content": [5]}]],
                         ids=lambda messages: json.dumps(messages)[:40])
def test_bad_messages(server, messages):
    error = assert_error(post(server, "/v1/chat/completions", {**CHAT, "messages": messages}), 400)
    assert error["param"].startswith("messages")


def test_missing_fields(server):
    assert_error(post(server, "/v1/completions", {"model": MODEL_NAME}), 400, "prompt")
    assert_error(post(server, "/v1/chat/completions", {"model": MODEL_NAME}), 400, "messages")


def test_top_logprobs_needs_logprobs_and_has_a_limit(server):
    assert_error(post(server, "/v1/chat/completions", {**CHAT, "logprobs": True,
                                                       "top_logprobs": 21}), 400, "top_logprobs")
    assert_error(post(server, "/v1/chat/completions", {**CHAT, "top_logprobs": 2}), 400)


@pytest.mark.parametrize("fields", [
    {"tools": [{"type": "function", "function": {"name": "f"}}]},
    {"response_format": {"type": "json_object"}}, {"functions": [{"name": "f"}]},
    {"modalities": ["audio"]}], ids=lambda fields: next(iter(fields)))
def test_known_but_unsupported_fields_are_refused_by_name(server, fields):
    assert_error(post(server, "/v1/chat/completions", {**CHAT, **fields}), 400, next(iter(fields)))
    neutral = {"tools": None, "response_format": {"type": "text"}, "functions": None,
               "modalities": None}
    assert post(server, "/v1/chat/completions", {**CHAT, **neutral}).status_code == 200


def test_unknown_model(server):
    for path, body in [("/v1/completions", PROMPT), ("/v1/chat/completions", CHAT)]:
        error = assert_error(post(server, path, {**body, "model": "gpt-4"}), 404, "gpt-4", "model")
        assert error["code"] == "model_not_found"


def test_a_prompt_that_is_too_long_is_counted_exactly(server):
    for count in (2048, 2049, 5000):
        answer = post(server, "/v1/completions", {**PROMPT, "prompt": [100] * count})
        error = assert_error(answer, 400, count, 2048)
        assert error["code"] == "context_length_exceeded"
    answer = post(server, "/v1/completions", {**PROMPT, "prompt": [100] * 2000, "max_tokens": 49})
    assert_error(answer, 400, 2000, 49, 2048)
    text = "hello " * 3000
    count = post(server, "/tokenize", {"model": MODEL_NAME, "prompt": text}).json()["count"]
    assert_error(post(server, "/v1/completions", {**PROMPT, "prompt": text}), 400, count, 2048)
    # The longest that fits does.
    fits = post(server, "/v1/completions", {**PROMPT, "prompt": [100] * 2047, "max_tokens": 1})
    assert fits.status_code == 200, fits.text


@pytest.mark.parametrize("body", [
    b"", b"{", b"nonsense", b"[]", b"null", b"5", b'"text"', b'{"model": }', b'{"prompt": "\xff\xfe"}',
    b'{"temperature": NaN, "prompt": "a"}', b'{"temperature": 1e999, "prompt": "a"}',
    b'{"prompt": "a"} trailing', b"[" * 100_000, b'{"a":' * 50_000, b'{"prompt": "\\ud800"}',
    b"\x00" * 100], ids=lambda body: body[:16].decode("latin-1").encode("unicode_escape").decode())
def test_bodies_that_are_no_request(server, body):
    paths = ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize")
    for path in paths[:2] if b"1e999" in body else paths:
        answer = requests.post(server.url + path, data=body, timeout=30,
                               headers={"Content-Type": "application/json"})
        assert_error(answer, 400)


def test_paths_and_methods(server):
    assert_error(requests.get(server.url + "/nowhere", timeout=10), 404, "/nowhere")
    answer = requests.get(server.url + "/v1/completions", timeout=10)
    assert_error(answer, 405)
    assert "POST" in answer.headers["allow"]
    assert_error(requests.post(server.url + "/v1/models", timeout=10), 405)


@pytest.mark.parametrize("request_bytes,status", [
    (b"GET / HTTP/9.9\r\n\r\n", None), (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", None),
    (b"\r\n\r\n\r\n\r\n", None), (b"GARBAGE\r\n\r\n", 400),
    (b"POST /v1/completions HTTP/1.1\r\nContent-Length: -5\r\n\r\n", 400),
    (b"POST /v1/completions HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", None),
    (b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    (b"GET /health HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", 431)],
                         ids=["version", "tls", "blank", "garbage", "negative", "huge", "chunk",
                              "header"])
def test_bytes_that_are_no_http(server, request_bytes, status):
    with connect(server) as connection:
        connection.sendall(request_bytes)
        connection.shutdown(1)
        answer = read_all(connection)
    if status is not None:
        assert answer.startswith(b"HTTP/1.1 %d" % status), answer[:200]
    elif answer:
        assert answer.startswith(b"HTTP/1.1 4") or answer.startswith(b"HTTP/1.1 5"), answer[:200]
    assert complete(server, prompt="Once upon a time")["text"]


def test_pipelined_requests_are_answered_in_order(server):
    with connect(server) as connection:
        first = raw_request({"model": MODEL_NAME, "prompt": "1, 2,", "max_tokens": 2})
        bad = raw_request({"model": "nobody", "prompt": "x"})
        last = b"GET /version HTTP/1.1\r\nHost: puna\r\nConnection: close\r\n\r\n"
        connection.sendall(first + bad + last)
        answer = read_all(connection)
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"404", b"200"]
    assert b"text_completion" in answer.split(b"HTTP/1.1 ")[1]
