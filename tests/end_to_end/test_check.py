# SPDX-License-Identifier: Apache-2.0
"""`puna check` and `puna divergence` on the real model, its own copy and a damaged one."""

import hashlib
import json
import os
import random
import subprocess

import pytest

from gguf_damage import damaged_copy
from puna_process import binary, model_path, run_puna

TINY = os.path.join(os.path.dirname(__file__), "..", "golden", "tiny_llama_gguf", "tiny.gguf")
README = os.path.join(os.path.dirname(__file__), "..", "..", "README.md")
ITEMS = 130


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("check")


@pytest.fixture(scope="module")
def sums(work):
    """Items in GSM8K's shape that a 135M model can answer, most of them."""
    draw = random.Random(4)
    path = work / "sums.jsonl"
    with open(path, "w", encoding="utf-8") as out:
        for _ in range(ITEMS):
            a, b = draw.randint(1, 9), draw.randint(1, 9)
            out.write(json.dumps({"question": f"What is {a} + {b}? Answer with the number only.",
                                  "answer": f"{a} + {b} = {a + b}\n#### {a + b}"}) + "\n")
    return path


@pytest.fixture(scope="module")
def damaged(work):
    return damaged_copy(model_path(), work / "damaged.gguf", 0x44)


def check(*arguments, base=None, variant=None, timeout=300):
    return run_puna("check", "--base", base or model_path(), "--variant", variant or model_path(),
                    *arguments, timeout=timeout)


def test_a_model_against_itself_passes(work, sums):
    key = work / "some.key"
    reports = []
    for batch in (32, 7):
        folder = work / f"same-{batch}"
        result = check("--gsm8k", sums, "--report", folder, "--key", key, "--batch", batch)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "PASS" in result.stdout and "0 of 60 answers differ" in result.stdout
        reports.append([(folder / name).read_bytes()
                        for name in ("report.html", "certificate.json")])
    assert reports[0] == reports[1], "the same bytes, whatever the batch"
    certificate = json.loads(reports[0][1])
    with open(model_path(), "rb") as model:
        digest = hashlib.sha256(model.read()).hexdigest()
    assert certificate["base_hash"] == certificate["variant_hash"] == digest
    family, = certificate["families"]
    assert family["name"] == "gsm8k" and family["verdict"] == "pass" and not family["degraded"]
    assert family["b"] == family["c"] == 0 and family["accuracy_base"] > 0.3
    assert family["kld"] == 0 and family["same_top"] == 1
    assert key.stat().st_mode & 0o777 == 0o600
    page = reports[0][0].decode()
    assert "<svg" in page and "<script" not in page and "http" not in page


def test_a_badly_quantised_variant_is_refused(sums, damaged):
    screened = check("--gsm8k", sums, "--json", "--key", damaged.parent / "k", variant=damaged)
    assert screened.returncode == 5, screened.stdout + screened.stderr
    family, = json.loads(screened.stdout)["families"]
    assert family["verdict"] == "refuse" and family["n"] == 0 and family["kld"] > 0.1
    asked = check("--gsm8k", sums, "--no-screen", "--json", "--key", damaged.parent / "k",
                  variant=damaged)
    assert asked.returncode == 5, asked.stdout + asked.stderr
    family, = json.loads(asked.stdout)["families"]
    assert family["verdict"] == "refuse" and family["degraded"] and family["early"]
    assert 0 < family["n"] < ITEMS and family["b"] > family["c"]


def test_generated_families_are_asked(work):
    result = check("--families", "edit,open_chat", "--items", 120, "--difficulty", 0,
                   "--control-items", 4, "--report", work / "edit", "--key", work / "some.key")
    assert result.returncode in (0, 4), result.stdout + result.stderr
    edit, chat = json.loads((work / "edit" / "certificate.json").read_text())["families"]
    assert edit["name"] == "edit" and edit["b"] == edit["c"] == 0
    # Never a pass where the base itself can't do it.
    assert edit["verdict"] == ("pass" if edit["accuracy_base"] >= 0.1 else "inconclusive")
    assert chat["verdict"] == "inconclusive" and chat["n"] == 0 and chat["kld"] == 0


def test_a_tampered_certificate_is_refused(work):
    key, path = work / "some.key", work / "same-32" / "certificate.json"
    good = run_puna("check", "--verify", path, "--key", key)
    assert good.returncode == 0 and "valid" in good.stdout, good.stderr
    text = path.read_text()
    for changed in (text.replace('"verdict": "pass"', '"verdict": "refuse"'),
                    text.replace('"n": 1', '"n": 2'), text[:-3], text + " ", "{}"):
        assert changed != text
        (work / "changed.json").write_text(changed)
        result = run_puna("check", "--verify", work / "changed.json", "--key", key)
        assert result.returncode == 2 and "certificate" in result.stderr, changed[-40:]
    (work / "other.key").write_text("another key of enough bytes\n")
    result = run_puna("check", "--verify", path, "--key", work / "other.key")
    assert result.returncode == 2 and "signed with the key" in result.stderr
    missing = run_puna("check", "--verify", path, "--key", work / "none.key")
    assert missing.returncode == 2 and not (work / "none.key").exists(), "verifying makes no key"


@pytest.mark.parametrize("arguments, fragment", [
    (["--items", 40], "40 items can't certify anything"),
    (["--families", "poetry"], "there is no \"poetry\""),
    (["--gsm8k", "none.jsonl"], "none.jsonl"),
    (["--report", "/proc/report"], "/proc/report"),
    (["--delta", "0"], "--delta"),
    (["--variant", "none.gguf"], "--variant"),
    (["--variant", README], "--variant"),
    (["--variant", TINY], "no form of the base"),
], ids=lambda value: str(value)[:30])
def test_bad_input_is_one_line(arguments, fragment):
    result = check(*arguments)
    assert result.returncode == 2 and fragment in result.stderr, result.stderr
    assert len(result.stderr.splitlines()) == 1 and result.stdout == ""


def test_another_vocabulary_is_refused(work):
    data = open(model_path(), "rb").read()
    at = data.index(b"tokenizer.ggml.tokens")
    word = data.index(b"\xc4\xa0the", at)  # " the", as byte-level BPE spells it
    (work / "words.gguf").write_bytes(data[:word] + b"\xc4\xa0xhe" + data[word + 5:])
    result = check(variant=work / "words.gguf")
    assert result.returncode == 2 and "vocabular" in result.stderr, result.stderr


def test_also_as_quantize_check():
    link = os.path.join(os.path.dirname(binary()), "quantize_check")
    result = subprocess.run([link, "--help"], capture_output=True, text=True, timeout=20)
    assert result.returncode == 0 and result.stdout.startswith("usage: puna check")
    result = subprocess.run([link, "--base", "x"], capture_output=True, text=True, timeout=20)
    assert result.returncode == 2 and "--variant is missing" in result.stderr


def test_divergence(work, damaged):
    def measured(*arguments):
        result = run_puna("divergence", "--text", README, "--chunks", 3, *arguments, timeout=120)
        assert result.returncode == 0, result.stderr
        return result.stdout

    same = json.loads(measured(model_path(), model_path(), "--json"))
    assert same["tokens"] == 3 * 255 and same["mean_kld"] == 0 and same["same_top"] == 1
    assert same["perplexity_ratio"] == 1 and 5 < same["base_perplexity"] < 60
    kv = json.loads(measured(model_path(), model_path(), "--json", "--kv-dtype", "int8"))
    assert 0 < kv["mean_kld"] < 0.02
    bad = json.loads(measured(model_path(), damaged, "--json"))
    assert bad["mean_kld"] > 0.5 and bad["perplexity_ratio"] > 1.5
    assert bad["kld_quantiles"]["1"] > bad["kld_quantiles"]["0.5"] > 0
    table = measured(model_path(), damaged)
    assert "mean divergence (KLD)" in table and "765 predicted tokens" in table
    short = work / "short.txt"
    short.write_text("too short")
    result = run_puna("divergence", model_path(), model_path(), "--text", short)
    assert result.returncode == 2 and "512" in result.stderr
