# SPDX-License-Identifier: Apache-2.0
"""/metrics: vLLM's names, consistent with what was asked and with each other."""

from http_tools import metric, metrics, post, wait_until
from puna_process import MODEL_NAME, Puna

HISTOGRAMS = ("vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds",
              "vllm:e2e_request_latency_seconds", "vllm:request_queue_time_seconds",
              "vllm:request_prefill_time_seconds", "vllm:request_decode_time_seconds",
              "vllm:request_prompt_tokens", "vllm:request_generation_tokens")
OTHERS = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc",
          "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total",
          "vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:request_success_total",
          "vllm:num_preemptions_total", "vllm:cache_config_info", "puna:memory_bytes")


def test_the_numbers_add_up():
    with Puna("--max-model-len", 512, "--admin-port", 0) as server:
        prompt = list(range(200, 240))
        for _ in range(3):
            answer = post(server, "/v1/completions", {"model": MODEL_NAME, "prompt": prompt,
                                                      "max_tokens": 10, "ignore_eos": True})
            assert answer.json()["usage"]["completion_tokens"] == 10
        assert answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"] == 32

        assert wait_until(lambda: metric(server, "vllm:request_success_total") == 3)
        values = metrics(server)
        for name in OTHERS:
            assert name in values, name
        for name in HISTOGRAMS:
            assert name + "_bucket" in values and name + "_sum" in values, name
            buckets = list(values[name + "_bucket"].values())
            assert buckets == sorted(buckets)
            assert buckets[-1] == metric(server, name + "_count")
        assert metric(server, "vllm:prompt_tokens_total") == 120
        assert metric(server, "vllm:generation_tokens_total") == 30
        assert metric(server, "vllm:prefix_cache_queries_total") >= 120
        assert metric(server, "vllm:prefix_cache_hits_total") == 64
        assert metric(server, "vllm:time_to_first_token_seconds_count") == 3
        assert metric(server, "vllm:inter_token_latency_seconds_count") == 27
        assert metric(server, "vllm:request_prompt_tokens_sum") == 120
        assert metric(server, "vllm:request_generation_tokens_sum") == 30
        assert metric(server, "vllm:num_requests_running") == 0
        assert metric(server, "vllm:num_requests_waiting") == 0
        assert metric(server, "vllm:kv_cache_usage_perc") == 0
        assert any(MODEL_NAME in labels for labels in values["vllm:num_requests_running"])


def test_memory_by_owner_is_the_printed_plan():
    with Puna("--max-model-len", 512) as server:
        owners = metrics(server)["puna:memory_bytes"]
        assert len(owners) == 13
        table = server.log_text()
        for line in ("weights, packed", "KV pool", "total"):
            assert line in table
        assert sum(owners.values()) <= metric(server, "puna:memory_budget_bytes")
