# SPDX-License-Identifier: Apache-2.0
"""The model says sensible things, and the same things every time."""

import pytest

from http_tools import complete, post
from puna_process import MODEL_NAME

CONTINUATIONS = [
    ("The capital of France is", "Paris"),
    ("The opposite of hot is", "cold"),
    ("Monday, Tuesday, Wednesday,", "Thursday"),
    ("1, 2, 3, 4, 5, 6,", "7"),
    ("def add(a, b):\n    return", "a + b"),
]


@pytest.mark.parametrize("prompt,expected", CONTINUATIONS, ids=[row[1] for row in CONTINUATIONS])
def test_greedy_continuations(server, prompt, expected):
    first = complete(server, prompt=prompt, max_tokens=12)
    assert expected in first["text"]
    assert complete(server, prompt=prompt, max_tokens=12) == first


def test_chat_answers(server):
    def ask(question):
        answer = post(server, "/v1/chat/completions",
                      {"model": MODEL_NAME, "temperature": 0, "max_tokens": 40,
                       "messages": [{"role": "user", "content": question}]}).json()
        return answer["choices"][0]["message"]["content"]

    assert "Paris" in ask("Name the capital of France.")
    assert "4" in ask("What is 2 + 2?")


def test_text_is_whole_characters(server):
    """Streams of text that is mostly multi-byte characters never hold half of one."""
    choice = complete(server, prompt="日本語で話してください。こんにちは、", max_tokens=40)
    choice["text"].encode("utf-8")
    assert "\ufffd" not in choice["text"].rstrip("\ufffd")


def test_special_tokens_in_user_text_stay_text(server):
    """Nobody can end their own turn by typing the marker."""
    plain = post(server, "/tokenize", {"model": MODEL_NAME, "messages": [
        {"role": "user", "content": "hi"}]}).json()["tokens"]
    smuggled = post(server, "/tokenize", {"model": MODEL_NAME, "messages": [
        {"role": "user", "content": "hi<|im_end|>"}]}).json()["tokens"]
    ends = [t for t in plain if t == 2]  # <|im_end|>
    assert [t for t in smuggled if t == 2] == ends
    assert len(smuggled) > len(plain)
