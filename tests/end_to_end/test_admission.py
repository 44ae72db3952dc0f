# SPDX-License-Identifier: Apache-2.0
"""Keys, classes, limits, deadlines, quotes and timings of the built server, and what a bad file says."""

import pytest

from http_tools import assert_error, post, stream
from puna_process import MODEL_NAME, Puna, model_path, run_puna

BODY = {"model": MODEL_NAME, "prompt": "Once upon a time", "max_tokens": 8, "ignore_eos": True}
KEYS = """
[[key]]
key = "rich"
name = "alice"

[[key]]
key = "poor"
name = "bob"
class = "batch"
tokens-per-minute = 30
"""


def bearer(key, **headers):
    return {"Authorization": f"Bearer {key}", **headers}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    file = tmp_path_factory.mktemp("keys") / "keys.toml"
    file.write_text(KEYS)
    with Puna("--max-model-len", 2048, "--api-keys-file", file) as running:
        yield running


def test_a_key_has_its_class_and_its_rate(guarded):
    def ask(**headers):
        return post(guarded, "/v1/completions", BODY, headers=bearer("poor", **headers))

    assert_error(post(guarded, "/v1/completions", BODY, headers=bearer("none")), 401)
    assert_error(ask(**{"x-puna-class": "interactive"}), 403, "batch")
    first = ask()
    assert first.status_code == 200
    assert first.headers["x-ratelimit-limit-tokens"] == "30"
    refusals = [answer for answer in (ask() for _ in range(4)) if answer.status_code == 429]
    assert refusals, "30 tokens a minute are not 5 times 12"
    assert assert_error(refusals[0], 429)["code"] == "rate_limit_exceeded"
    assert int(refusals[0].headers["retry-after"]) >= 1
    assert post(guarded, "/v1/completions", BODY, headers=bearer("rich")).status_code == 200


def test_step_times_are_known_before_the_first_request():
    """Calibrated at start: a server that served nothing can say when a first token would come."""
    with Puna("--max-model-len", 2048) as fresh:
        quote = post(fresh, "/v1/quote", BODY).json()
        assert 0 < quote["ttft_s"]["p50"] <= quote["ttft_s"]["p95"] < 5
        refused = post(fresh, "/v1/completions", BODY, headers={"x-llm-d-slo-ttft-ms": "0.01"})
        assert assert_error(refused, 429)["reason"] == "deadline"


def test_deadlines_end_an_answer_with_what_there_is():
    with Puna("--max-model-len", 2048) as running:
        chat = {"model": MODEL_NAME, "ignore_eos": True, "deadline_ms": 400,
                "messages": [{"role": "user", "content": "Tell me a long story."}]}
        answer = post(running, "/v1/chat/completions", chat).json()
        assert answer["choices"][0]["finish_reason"] == "deadline"
        assert answer["choices"][0]["message"]["content"]
        chunks = stream(running, "/v1/chat/completions", chat)
        assert chunks[-1]["choices"][0]["finish_reason"] == "deadline"
        assert len(chunks) > 2


def test_timings_and_quotes(guarded):
    quote = post(guarded, "/v1/quote", BODY, headers=bearer("rich")).json()
    assert quote["admitted"] and quote["max_tokens"] == 8 and quote["refusal"] is None
    answer = post(guarded, "/v1/completions", BODY,
                  headers=bearer("rich", **{"x-puna-timings": "1"})).json()
    assert answer["puna_timings"]["total_ms"] > 0
    chunks = stream(guarded, "/v1/completions", BODY,
                    headers=bearer("rich", **{"x-puna-timings": "1"}))
    assert "puna_timings" in chunks[-1]
    assert not any("puna_timings" in chunk for chunk in chunks[:-1])


@pytest.mark.parametrize("flag, text, fragments", [
    ("--config", "prot = 1", (":1:", "prot")),
    ("--config", "[class.batch]\nkv-share = 2", (":2:", "class.batch.kv-share")),
    ("--config", "[class.background]\nkv-share = 0.9\n[class.batch]\nkv-share = 0.1",
     ("class.background.kv-share", "class.batch.kv-share")),
    ("--config", "memory-budget = \"1KiB\"", ("memory",)),
    ("--api-keys-file", "[[key]]\nkey = \"a\"\nname = \"b\"\nquota = 1", (":4:", "key.quota")),
    ("--api-keys-file", KEYS + KEYS, (":13:", "key.key", "twice")),
], ids=["unknown", "share", "shares", "budget", "key", "twice"])
def test_a_bad_file_is_one_line(tmp_path, flag, text, fragments):
    file = tmp_path / "file.toml"
    file.write_text(text)
    ended = run_puna("serve", "--model", model_path(), flag, file)
    assert ended.returncode == 2, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if line.startswith("puna: ")]
    assert len(lines) == 1, ended.stderr
    for fragment in fragments:
        assert fragment in lines[0]
