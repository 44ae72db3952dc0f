# SPDX-License-Identifier: Apache-2.0
"""`puna bench serve` against a real server: its numbers belong together. No speed is asserted."""

import json
import signal
import subprocess
import time

import pytest

from http_tools import metric
from puna_process import Puna, binary, model_path, run_puna

QUICK = ("--prompt-tokens", "uniform:40:80", "--output-tokens", 4, "--rate", 20)


def bench(server, *flags):
    result = run_puna("bench", "serve", "--url", server.url, *flags, "--json", "-", timeout=120)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("endpoint", [["chat"], ["completions"], ["completions", "--prompt-ids", "49152"]], ids=str)
def test_counts_what_the_server_counts(server, endpoint):
    before = {name: metric(server, name) for name in ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")}
    report = bench(server, "--requests", 10, *QUICK, "--endpoint", *endpoint)
    assert (report["requests"], report["completed"], report["failed"]) == (10, 10, 0)
    assert report["total_output_tokens"] == 40 and report["tokens_counted_by_server"]
    assert metric(server, "vllm:generation_tokens_total") - before["vllm:generation_tokens_total"] == 40
    # The words have the wanted length in the server's own tokens: 60 on average.
    assert report["total_input_tokens"] == pytest.approx(600, rel=0.25)
    ttft, whole = report["ttft_ms"], report["e2el_ms"]
    assert 0 < ttft["p50"] <= ttft["p99"] <= ttft["max"] <= whole["max"]
    assert report["e2el_from_due_ms"]["p50"] >= whole["p50"] * 0.999
    assert report["request_throughput"] == pytest.approx(10 / report["duration"])


def test_turns_share_their_prefix(server):
    report = bench(server, "--requests", 24, *QUICK, "--multi-turn", 3, "--shared-prefix", 64)
    assert report["completed"] == 24
    assert report["total_cached_tokens"] > 24 * 32


def test_refusals_and_tenants(tmp_path):
    flags = ("--max-num-seqs", 1, "--max-queued-requests", 1, "--api-key", "a", "--api-key", "b",
             "--max-model-len", 512)
    with Puna(*flags) as server:
        page = tmp_path / "report.html"
        report = bench(server, "--bursts", "8:1", "--requests", 8, "--output-tokens", 8, "--prompt-tokens", 32,
                       "--tenant", "one=a", "--tenant", "two=b", "--honour-retry-after", "--html", page)
        assert report["refusals"]["by_status"].get("429", 0) > 0
        assert report["refusals"]["with_retry_after"] == report["refusals"]["by_status"]["429"]
        assert report["refusals"]["came_back"] > 0
        assert report["completed"] + report["refused"] == 8 and report["failed"] == 0
        assert sum(tenant["requests"] for tenant in report["tenants"]) == 8
        html = page.read_text(encoding="utf-8")
        assert html.count("<svg") == 5 and "Retry-After" in html


def test_a_sweep_finds_the_capacity(server):
    work = ("--prompt-tokens", 16, "--output-tokens", 4, "--duration", 1)
    found = bench(server, "--sweep", "--rate", 16, "--slo-e2e-ms", 500, *work)
    held = [run["request_offered"] for run in found["runs"] if run["good"] >= 0.99 * run["requests"]]
    assert found["capacity_requests_per_s"] >= 4 and held and len(found["runs"]) > len(held)
    # Nobody answers within a tenth of a millisecond.
    nothing = run_puna("bench", "serve", "--url", server.url, "--sweep", "--rate", 40, "--slo-e2e-ms", 0.1, *work)
    assert nothing.returncode == 1 and "capacity: none" in nothing.stdout


def test_an_interrupted_sweep_ends_and_counts_no_part_of_a_run(server):
    command = [binary(), "bench", "serve", "--url", server.url, "--sweep", "--rate", "4", "--duration", "5",
               "--prompt-tokens", "16", "--output-tokens", "2", "--slo-e2e-ms", "60000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=4)
    assert process.returncode == 1 and output.splitlines()[1:] == ["capacity: none: no run kept the SLO"]


def test_a_wrong_key_is_told():
    with Puna("--api-key", "right", "--max-model-len", 512) as server:
        result = run_puna("bench", "serve", "--url", server.url, "--api-key", "wrong", "--requests", 2)
        assert result.returncode == 2 and "--api-key" in result.stderr


@pytest.mark.parametrize("flags", [["--url", "https://x"], ["--url", "http://127.0.0.1:1"], ["--rate", "no"],
                                   ["--prompt-tokens", "0"], ["--sweep"],
                                   ["--sweep", "--slo-ttft-ms", "9", "--duration", "1"]], ids=str)
def test_bad_usage_is_one_line(flags):
    result = run_puna("bench", "serve", *flags)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("puna: ")


def test_a_server_of_our_own_survives_chaos():
    result = run_puna("selftest", "--chaos", 4, "--model", model_path(), "--", "--max-model-len", 1024,
                      "--max-num-seqs", 4, "--max-queued-requests", 8, timeout=180)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.splitlines()[-1] == "pass" and "BROKEN" not in result.stdout
    for promise in ("admitted-finishes", "same-answers", "poison-is-refused", "nothing-stuck", "memory-flat", "drains"):
        assert promise in result.stdout


def test_a_broken_server_fails_the_selftest():
    with Puna("--api-key", "right", "--max-model-len", 512) as server:
        result = run_puna("selftest", "--chaos", 1, "--url", server.url, "--api-key", "wrong")
        assert result.returncode == 2 and "--api-key" in result.stderr
