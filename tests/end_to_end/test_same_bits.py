# SPDX-License-Identifier: Apache-2.0
"""The same request gives the same tokens and logprobs: alone, in a crowd, in other chunks, from a warm
prefix, after eviction, and after a restart. Floats are compared for equality."""

import concurrent.futures

import pytest

from http_tools import complete, metric, post
from puna_process import MODEL_NAME, Puna

pytestmark = pytest.mark.bits

CROWD = 64
LENGTHS = (1, 3, 15, 16, 17, 31, 33, 48, 70, 130, 257)  # around block borders, and over a chunk
SAMPLERS = (
    {"temperature": 0},
    {"temperature": 0.8},
    {"temperature": 1.0, "top_p": 0.9},
    {"temperature": 1.0, "top_k": 20},
    {"temperature": 1.2, "min_p": 0.05},
    {"temperature": 0, "repetition_penalty": 1.2},
    {"temperature": 0.7, "frequency_penalty": 0.5, "presence_penalty": 0.5},
    {"temperature": 1.0, "logit_bias": {"28": -5, "30": 2.5}},
    {"temperature": 0.9, "top_k": 50, "top_p": 0.95, "min_p": 0.01, "stop": ["."]},
)
SHARED_PREFIX = [(7 * i * i + 11 * i) % 40_000 + 100 for i in range(64)]


def requests_of_the_crowd():
    """64 requests of mixed lengths and samplers; every third begins like the others of its kind."""
    crowd = []
    for number in range(CROWD):
        length = LENGTHS[number % len(LENGTHS)]
        prompt = [(number * 7919 + i * 104_729) % 48_000 + 50 for i in range(length)]
        if number % 3 == 0:
            prompt = SHARED_PREFIX + prompt
        crowd.append({"prompt": prompt, "max_tokens": 6 + number % 11, "seed": number,
                      "logprobs": 3, "ignore_eos": number % 2 == 0,
                      **SAMPLERS[number % len(SAMPLERS)]})
    return crowd


def bits(choice):
    logprobs = choice["logprobs"]
    return (choice["text"], choice["finish_reason"], logprobs["tokens"],
            logprobs["token_logprobs"], logprobs["top_logprobs"])


def together(server):
    with concurrent.futures.ThreadPoolExecutor(CROWD) as pool:
        return list(pool.map(lambda fields: bits(complete(server, **fields)),
                             requests_of_the_crowd()))


@pytest.fixture(scope="module")
def alone():
    """Each request by itself on a server that remembers nothing."""
    with Puna("--max-model-len", 512, "--no-prefix-cache") as server:
        return [bits(complete(server, **fields)) for fields in requests_of_the_crowd()]


def assert_same(alone, other):
    different = [i for i, (a, b) in enumerate(zip(alone, other)) if a != b]
    assert not different, (f"requests {different} differ, the first: {alone[different[0]]} alone, "
                           f"{other[different[0]]} now")


def test_the_crowd_is_worth_comparing(alone):
    assert len(alone) == CROWD
    assert sum(len(tokens) for _, _, tokens, _, _ in alone) > 400
    assert len({text for text, *_ in alone}) > 50


def test_in_a_crowd_and_from_a_warm_prefix(alone):
    with Puna("--max-model-len", 512, "--max-num-seqs", 64) as server:
        assert_same(alone, together(server))
        cold = metric(server, "vllm:prefix_cache_hits_total")
        assert_same(alone, together(server))
        assert metric(server, "vllm:prefix_cache_hits_total") > cold + 1000, "nothing was warm"


@pytest.mark.parametrize("tokens", [16, 100])
def test_in_other_chunks(alone, tokens):
    with Puna("--max-model-len", 512, "--max-num-seqs", 16, "--max-num-batched-tokens",
              tokens) as server:
        assert_same(alone, together(server))


def test_with_one_thread(alone):
    with Puna("--max-model-len", 512, "--threads", 1) as server:
        assert_same(alone, together(server))


def test_after_eviction(alone):
    """A pool for a few sequences: blocks of ended requests are taken away again and again."""
    with Puna("--max-model-len", 384, "--max-num-seqs", 2) as server:
        def ask_some():
            before = metric(server, "vllm:prefix_cache_hits_total")
            answers = [bits(complete(server, **fields)) for fields in requests_of_the_crowd()[:11]]
            return answers, metric(server, "vllm:prefix_cache_hits_total") - before

        first, cold_hits = ask_some()
        assert_same(alone[:11], first)
        _, warm_hits = ask_some()
        for number in range(6):  # other prompts push the first ones out
            post(server, "/v1/completions",
                 {"model": MODEL_NAME, "max_tokens": 1, "prompt": [100 + number] * 380})
        again, hits = ask_some()
        assert_same(alone[:11], again)
        assert hits == cold_hits < warm_hits, "nothing was evicted"


def test_whole_choices_of_one_call_equal_single_calls(alone):
    del alone
    with Puna("--max-model-len", 512) as server:
        fields = {"prompt": "Once upon a time", "temperature": 1, "seed": 5, "max_tokens": 12,
                  "logprobs": 2}
        body = {"model": MODEL_NAME, **fields, "n": 4}
        several = post(server, "/v1/completions", body).json()["choices"]
        assert bits(several[0]) == bits(complete(server, **fields))
        again = post(server, "/v1/completions", body).json()["choices"]
        assert [bits(choice) for choice in several] == [bits(choice) for choice in again]
