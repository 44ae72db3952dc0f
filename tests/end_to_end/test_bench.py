# SPDX-License-Identifier: Apache-2.0
"""`puna bench`: what scripts read of it, and that its numbers belong together. No speed is asserted."""

import json
import pathlib

import pytest

from puna_process import model_path, run_puna

TINY = pathlib.Path(__file__).parents[1] / "golden" / "tiny_llama_hf"  # it has no tokenizer


def bench_engine(model, *flags):
    result = run_puna("bench", "engine", "--model", model, *flags, "--json", timeout=120)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_engine_for_scripts():
    report = bench_engine(model_path(), "--prompt", 96, "--output", 8, "--batch", "1,4", "--threads", 2)
    machine = report["machine"]
    assert machine["cpu"] and machine["isa"] and machine["cores"] >= 1 and machine["threads"] == 2
    for name in ("read_gb_per_s", "int8_gop_per_s", "f32_gflop_per_s"):
        assert machine[name] > 0, name
    assert machine["bf16_gflop_per_s"] >= 0
    assert [(r["batch"], r["prompt"], r["output"]) for r in report["results"]] == [(1, 96, 8), (4, 96, 8)]
    for r in report["results"]:
        assert r["prefill_tokens_per_s"] > 0
        assert 0 < r["step_ms_p50"] <= r["step_ms_p99"]
        # All tokens by all time: between what the fastest and the slowest step alone would give.
        assert r["decode_tokens_per_s"] >= 0.999 * r["batch"] / (r["step_ms_p99"] / 1e3)
        # A step reads the weights, and the keys and values on top.
        step_s = r["step_ms_p50"] / 1e3
        assert r["read_gb_per_s"] * step_s * 1e9 > report["weight_bytes_per_step"]
        expected = r["read_gb_per_s"] / r["roof_read_gb_per_s"]
        assert r["fraction_of_read_bandwidth"] == pytest.approx(expected)
    # The file is 98 MB, of which all but a few norms and the metadata are read.
    assert report["weight_bytes_per_step"] == pytest.approx(98e6, rel=0.05)


def test_engine_needs_no_tokenizer():
    report = bench_engine(TINY, "--prompt", 20, "--output", 3, "--batch", 2)
    assert report["results"][0]["batch"] == 2


def test_engine_for_people():
    result = run_puna("bench", "engine", TINY, "--prompt", 20, "--output", 3, "--batch", "1,2")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 6 and "limits: read" in lines[2]
    assert max(map(len, lines)) <= 110


def test_kernels_for_scripts():
    result = run_puna("bench", "kernels", "--filter", "^matmul/Q4_0/(1|64)$", "--json", timeout=120)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert [(r["op"], r["type"], r["rows"]) for r in report["results"]] == [
        ("matmul", "Q4_0", 1), ("matmul", "Q4_0", 64)]
    for r in report["results"]:
        assert r["time_us"] > 0 and r["bound"] in ("read", "int8", "bf16", "f32")
        assert r["fraction_of_bound"] == max(r["fraction_of_read_bandwidth"], r["fraction_of_peak"])


@pytest.mark.parametrize("arguments", [
    ["engine"], ["engine", "none.gguf"], ["engine", TINY, "--batch", "0"], ["engine", TINY, "--prompt", "x"],
    ["engine", TINY, "--prompt", "100000"], ["engine", TINY, "--isa", "sse"], ["kernels", "--filter", "("],
    ["kernels", "--filter", "nothing"], ["fly"], []], ids=str)
def test_bad_usage_is_one_line_and_exit_code_2(arguments):
    result = run_puna("bench", *arguments)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("puna: ")
    assert result.stdout == ""
