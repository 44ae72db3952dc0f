# SPDX-License-Identifier: Apache-2.0
"""The official Python client, as people use it."""

import asyncio
import concurrent.futures
import math

import openai
import pytest
import requests

from puna_process import MODEL_NAME, Puna

CAPITAL = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]


def chat(client, **fields):
    arguments = {"model": MODEL_NAME, "messages": CAPITAL, "temperature": 0, "max_tokens": 12}
    return client.chat.completions.create(**{**arguments, **fields})


def test_models(client):
    models = client.models.list().data
    assert [model.id for model in models] == [MODEL_NAME]
    assert models[0].object == "model"
    assert client.models.retrieve(MODEL_NAME).id == MODEL_NAME


def test_chat(client):
    answer = chat(client)
    assert answer.object == "chat.completion"
    assert answer.model == MODEL_NAME
    assert answer.id and answer.created > 1_700_000_000
    assert len(answer.choices) == 1
    assert answer.choices[0].message.role == "assistant"
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 0 < usage.completion_tokens <= 12
    assert usage.prompt_tokens_details.cached_tokens >= 0


def test_chat_streaming_equals_the_whole_answer(client):
    whole = chat(client)
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    assert all(chunk.object == "chat.completion.chunk" for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 1
    # No role-only chunk before the first token: benchmarks take it for the first token.
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].choices[0].delta.content
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    finishes = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert finishes[-1] == whole.choices[0].finish_reason
    assert all(finish is None for finish in finishes[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens


def test_completions(client):
    answer = client.completions.create(model=MODEL_NAME, prompt="The capital of France is",
                                       temperature=0, max_tokens=6)
    assert answer.object == "text_completion"
    assert "Paris" in answer.choices[0].text
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 6
    chunks = client.completions.create(model=MODEL_NAME, prompt="The capital of France is",
                                       temperature=0, max_tokens=6, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == answer.choices[0].text


def test_several_prompts_and_choices_are_numbered(client):
    answer = client.completions.create(model=MODEL_NAME, prompt=["One, two,", "Monday, Tuesday,"],
                                       n=2, temperature=0, max_tokens=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    texts = [choice.text for choice in answer.choices]
    assert texts[0] == texts[1] and texts[2] == texts[3] and texts[0] != texts[2]
    assert answer.usage.completion_tokens == 12


def test_n_gives_different_answers_and_a_seed_the_same_ones(client):
    def texts(seed):
        answer = chat(client, n=4, temperature=1.0, seed=seed, max_tokens=10,
                      messages=[{"role": "user", "content": "Tell me a story."}])
        assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
        return [choice.message.content for choice in answer.choices]

    first = texts(7)
    assert len(set(first)) > 1
    assert texts(7) == first
    assert texts(8) != first


def test_streamed_choices_carry_their_index(client):
    whole = chat(client, n=3, seed=3, temperature=1.0)
    texts = {}
    for chunk in chat(client, n=3, seed=3, temperature=1.0, stream=True):
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
    assert texts == {choice.index: choice.message.content for choice in whole.choices}


def test_chat_logprobs(client):
    answer = chat(client, logprobs=True, top_logprobs=5)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens or (
        answer.choices[0].finish_reason == "stop"
        and len(content) == answer.usage.completion_tokens - 1)
    assert "".join(entry.token for entry in content).startswith(
        answer.choices[0].message.content.rstrip("\ufffd"))
    for entry in content:
        assert entry.logprob <= 0 and bytes(entry.bytes).decode(errors="replace") == entry.token
        assert len(entry.top_logprobs) == 5
        likelihoods = [top.logprob for top in entry.top_logprobs]
        assert likelihoods == sorted(likelihoods, reverse=True)
        assert sum(map(math.exp, likelihoods)) <= 1 + 1e-5
        # Greedy takes the likeliest.
        assert entry.token == entry.top_logprobs[0].token
        assert entry.logprob == entry.top_logprobs[0].logprob
    assert chat(client).choices[0].logprobs is None


def test_completion_logprobs(client):
    prompt = "The capital of France is"
    answer = client.completions.create(model=MODEL_NAME, prompt=prompt, temperature=0,
                                       max_tokens=5, logprobs=3)
    logprobs = answer.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == 5
    assert len(logprobs.top_logprobs) == len(logprobs.text_offset) == 5
    assert "".join(logprobs.tokens) == answer.choices[0].text
    for token, logprob, top in zip(logprobs.tokens, logprobs.token_logprobs,
                                   logprobs.top_logprobs):
        assert logprob == max(top.values()) == top[token]
        assert len(top) == 3


def test_streamed_logprobs_are_the_same(client):
    whole = chat(client, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    streamed = []
    for chunk in chat(client, logprobs=True, top_logprobs=2, stream=True):
        if chunk.choices and chunk.choices[0].logprobs:
            streamed += chunk.choices[0].logprobs.content
    assert streamed == whole


@pytest.mark.parametrize("stop", [" five", [" never", " five"], "ur, fi"])
def test_stop_strings_end_the_text_before_them(client, stop):
    fields = {"model": MODEL_NAME, "prompt": "one, two, three,", "temperature": 0,
              "max_tokens": 20}
    free = client.completions.create(**fields).choices[0].text
    needle = stop if isinstance(stop, str) else stop[1]
    assert needle in free, free
    answer = client.completions.create(**fields, stop=stop)
    assert answer.choices[0].text == free[:free.index(needle)]
    assert answer.choices[0].finish_reason == "stop"
    chunks = list(client.completions.create(**fields, stop=stop, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == answer.choices[0].text


def test_max_tokens_and_its_new_name(client):
    for field in ("max_tokens", "max_completion_tokens"):
        answer = client.chat.completions.create(model=MODEL_NAME, messages=CAPITAL, temperature=0,
                                                **{field: 2})
        assert answer.usage.completion_tokens == 2
        assert answer.choices[0].finish_reason == "length"


def test_an_answer_ends_by_itself(client):
    answer = chat(client, max_tokens=200,
                  messages=[{"role": "user", "content": "Say hello in one short sentence."}])
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens < 200
    assert "<|im_end|>" not in answer.choices[0].message.content


def test_logit_bias_forbids_and_forces(client):
    first = client.completions.create(model=MODEL_NAME, prompt="The capital of France is",
                                      temperature=0, max_tokens=1, logprobs=1)
    text = first.choices[0].text
    tokenize = str(client.base_url).removesuffix("/v1/") + "/tokenize"
    ids = requests.post(tokenize, json={"model": MODEL_NAME, "prompt": text}, timeout=10).json()
    token = ids["tokens"][-1]
    other = client.completions.create(model=MODEL_NAME, prompt="The capital of France is",
                                      temperature=0, max_tokens=1,
                                      logit_bias={str(token): -100})
    assert other.choices[0].text != text
    forced = client.completions.create(model=MODEL_NAME, prompt="Once upon a time", temperature=0,
                                       max_tokens=1, logit_bias={str(token): 100})
    assert forced.choices[0].text == text


def test_a_conversation_reaches_the_model(client):
    messages = [{"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": "My name is Alice."},
                {"role": "assistant", "content": "Nice to meet you, Alice!"},
                {"role": "user", "content": "What is my name?"}]
    assert "Alice" in chat(client, messages=messages, max_tokens=30).choices[0].message.content


def test_async_client(server):
    async def ask(client, number):
        answer = await client.completions.create(model=MODEL_NAME, prompt=f"{number} + 1 =",
                                                 temperature=0, max_tokens=4)
        return answer.choices[0].text

    async def main():
        async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="x") as client:
            return await asyncio.gather(*(ask(client, n) for n in range(8)))

    assert all(asyncio.run(main()))


# --- errors as typed exceptions ---------------------------------------------------------------


def test_bad_request_error(client):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, temperature=-1)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.BadRequestError):
        chat(client, messages=[])


def test_not_found_error(client):
    with pytest.raises(openai.NotFoundError) as caught:
        chat(client, model="gpt-4")
    assert "gpt-4" in caught.value.message
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")


def test_authentication_error():
    with Puna("--max-model-len", 512, "--api-key", "sesame", env={"PUNA_API_KEY": "other"}) as server:
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=server.url + "/v1", api_key="wrong").models.list()
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=server.url + "/v1", api_key="other").models.list()
        right = openai.OpenAI(base_url=server.url + "/v1", api_key="sesame", max_retries=0)
        assert chat(right).choices[0].message.content
        assert requests.get(server.url + "/health", timeout=10).status_code == 200
        assert requests.get(server.url + "/v1/models", timeout=10).status_code == 401


def test_rate_limit_error_on_a_full_queue():
    with Puna("--max-model-len", 1024, "--max-num-seqs", 1, "--max-queued-requests", 1) as server:
        client = openai.OpenAI(base_url=server.url + "/v1", api_key="x", max_retries=0)

        def ask(_):
            try:
                return client.completions.create(
                    model=MODEL_NAME, prompt="Once", max_tokens=100,
                    extra_body={"ignore_eos": True}).usage.completion_tokens
            except openai.RateLimitError as error:
                return error

        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            results = list(pool.map(ask, range(6)))
        refused = [r for r in results if isinstance(r, openai.RateLimitError)]
        assert results.count(100) >= 2, "what was admitted is finished"
        assert len(refused) == 6 - results.count(100) and refused
        error = refused[0]
        assert error.code == "server_overloaded"
        assert float(error.response.headers["retry-after"]) >= 1
        assert int(error.response.headers["retry-after-ms"]) >= 1
        # The client's own retries get through in the end.
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            patient = openai.OpenAI(base_url=server.url + "/v1", api_key="x", max_retries=10)
            answers = list(pool.map(lambda n: patient.completions.create(
                model=MODEL_NAME, prompt="Once", max_tokens=10 + n).usage.completion_tokens,
                range(4)))
        assert all(answers)
