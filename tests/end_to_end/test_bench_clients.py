# SPDX-License-Identifier: Apache-2.0
"""curl, and the request shapes of `vllm bench serve`, guidellm and lm-eval."""

import json
import shutil
import subprocess

import pytest
import requests

from http_tools import complete, post, stream
from puna_process import MODEL_NAME

PARTS = [{"role": "user", "content": [{"type": "text", "text": "Tell me a story."}]}]


def test_curl_streams(server):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    body = {"model": MODEL_NAME, "stream": True, "max_tokens": 8,
            "messages": [{"role": "user", "content": "Hello!"}]}
    out = subprocess.run(
        ["curl", "-N", "-s", "-S", "--fail-with-body", f"{server.url}/v1/chat/completions", "-H",
         "Content-Type: application/json", "-d", json.dumps(body)],
        capture_output=True, text=True, check=True, timeout=60).stdout
    blocks = out.split("\n\n")
    assert blocks[-2:] == ["data: [DONE]", ""]
    assert all(block.startswith("data: {") for block in blocks[:-2])


def test_the_curl_line_that_serve_prints_works(server):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    line = server.lines[-1]
    assert line.startswith("try: curl ")
    out = subprocess.run(["bash", "-c", line.removeprefix("try: ")], capture_output=True, text=True,
                         check=True, timeout=120).stdout
    assert "Paris" in json.loads(out)["choices"][0]["message"]["content"]


def usage_only_chunks(chunks):
    return [chunk for chunk in chunks if not chunk["choices"]]


def test_vllm_bench_completions(server):
    body = {"model": MODEL_NAME, "prompt": "The quick brown fox", "repetition_penalty": 1.0,
            "max_tokens": 16, "logprobs": None, "temperature": 0.0, "ignore_eos": True,
            "stream_options": {"include_usage": True}}
    chunks = stream(server, "/v1/completions", body,
                    headers={"x-request-id": "bench-1", "Authorization": "Bearer none"})
    # It takes the first chunk with a choice for the first token, and reads usage where there is none.
    assert chunks[0]["choices"][0]["text"]
    usage = usage_only_chunks(chunks)
    assert len(usage) == 1 and chunks[-1] is usage[0]
    assert usage[0]["usage"]["completion_tokens"] == 16
    assert all(chunk.get("usage") is None for chunk in chunks[:-1])


def test_vllm_bench_chat(server):
    body = {"model": MODEL_NAME, "messages": PARTS, "max_completion_tokens": 12, "temperature": 0.0,
            "ignore_eos": True, "stream_options": {"include_usage": True}}
    chunks = stream(server, "/v1/chat/completions", body, headers={"x-request-id": "bench-2"})
    assert chunks[0]["choices"][0]["delta"]["content"]
    assert usage_only_chunks(chunks)[0]["usage"]["completion_tokens"] == 12


def test_vllm_bench_random_dataset_sends_token_ids(server):
    body = {"model": MODEL_NAME, "prompt": list(range(1000, 1100)), "max_tokens": 4,
            "ignore_eos": True, "stream_options": {"include_usage": True}}
    chunks = stream(server, "/v1/completions", body)
    assert chunks[-1]["usage"]["prompt_tokens"] == 100


def test_guidellm(server):
    assert requests.get(server.url + "/health", timeout=10).status_code == 200
    models = requests.get(server.url + "/v1/models", timeout=10).json()
    assert models["data"][0]["id"] == MODEL_NAME
    options = {"include_usage": True, "continuous_usage_stats": True}
    for path, fields in [
            ("/v1/completions", {"prompt": "Once upon a time", "max_tokens": 10}),
            ("/v1/chat/completions", {"messages": PARTS, "max_completion_tokens": 10,
                                      "max_tokens": 10})]:
        chunks = stream(server, path, {"model": MODEL_NAME, "stream_options": options, "stop": None,
                                       "ignore_eos": True, **fields})
        counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
        assert counts == sorted(counts) and counts[0] >= 1 and counts[-1] == 10


def test_lm_eval_batches_of_token_ids(server):
    answer = post(server, "/v1/completions",
                  {"model": MODEL_NAME, "prompt": [[504, 3575], [504, 3575, 282]], "max_tokens": 3,
                   "temperature": 0, "seed": 1234, "logprobs": 1})
    choices = answer.json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1]
    for choice in choices:
        logprobs = choice["logprobs"]
        assert all(t == max(top.values())
                   for t, top in zip(logprobs["token_logprobs"], logprobs["top_logprobs"]))


def test_unknown_and_null_fields_change_nothing(server):
    plain = complete(server, prompt="One, two, three,")
    extra = complete(server, prompt="One, two, three,", frobnicate={"a": [1]}, stop=None, seed=None,
                     logit_bias=None, top_p=None, n=None, user="someone", metadata=None,
                     logprobs=None, suffix=None, best_of=None, stream=None)
    assert extra["text"] == plain["text"]


def test_request_id_comes_back(server):
    answer = post(server, "/v1/completions", {"model": MODEL_NAME, "prompt": "a", "max_tokens": 1},
                  headers={"x-request-id": "my-id-42"})
    assert answer.headers.get("x-request-id") == "my-id-42"


def test_keep_alive_serves_many_requests_on_one_connection(server):
    with requests.Session() as session:
        for number in range(20):
            answer = session.post(server.url + "/v1/completions", timeout=30,
                                  json={"model": MODEL_NAME, "prompt": f"{number}", "max_tokens": 1})
            assert answer.status_code == 200


def test_tokenize_and_back(server):
    text = "Hello, wörld! 你好 🙂\n\ttabs  and   spaces"
    tokens = post(server, "/tokenize", {"model": MODEL_NAME, "prompt": text}).json()
    assert tokens["count"] == len(tokens["tokens"]) > 5
    assert tokens["max_model_len"] == 2048
    back = post(server, "/detokenize", {"model": MODEL_NAME, "tokens": tokens["tokens"]}).json()
    assert back["prompt"] == text
    chat = post(server, "/tokenize", {"model": MODEL_NAME, "messages": PARTS}).json()
    asked = post(server, "/v1/chat/completions",
                 {"model": MODEL_NAME, "messages": PARTS, "max_tokens": 1}).json()
    assert chat["count"] == asked["usage"]["prompt_tokens"]


def test_version_and_probes(server):
    assert requests.get(server.url + "/version", timeout=10).json()["version"]
    for url in (server.url, server.admin_url):
        for path in ("/health", "/ready", "/metrics"):
            assert requests.get(url + path, timeout=10).status_code == 200, url + path
