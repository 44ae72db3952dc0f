# SPDX-License-Identifier: Apache-2.0
"""`puna check` and `puna divergence`: a model that can do the task families, its quantised forms, and
what people get wrong. Without early ends nowhere: clear cases are what is tested."""

import hashlib
import json
import os
import subprocess

import pytest

from puna_process import binary, model_path, run_puna

TESTS = os.path.join(os.path.dirname(__file__), "..")
MODEL = os.path.join(TESTS, "models", "check-7m")
TINY = os.path.join(TESTS, "golden", "tiny_llama_gguf", "tiny.gguf")
README = os.path.join(TESTS, "..", "README.md")
EASY = ["--difficulty", 0, "--items", 400]
# Where the verdict is not what is asked: few items tell at a large tolerance.
FEW = ["--difficulty", 0, "--items", 100, "--delta", 10, "--control-items", 10]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("check")


@pytest.fixture(scope="module")
def quantised(work):
    def make(kind):
        path = work / f"{kind}.gguf"
        if not path.exists():
            result = run_puna("quantize", MODEL, path, "--type", kind)
            assert result.returncode == 0, result.stderr
        return path
    return make


@pytest.fixture(scope="module")
def itself(work):
    """The model against itself, in two sizes of batch: [(exit code, stdout, folder)]."""
    runs = []
    for batch in (32, 7):
        folder = work / f"itself-{batch}"
        result = check("--families", "algebra", *FEW, "--report", folder, "--key",
                       work / "some.key", "--batch", batch)
        runs.append((result, folder))
    return runs


def check(*arguments, base=MODEL, variant=MODEL, timeout=300):
    return run_puna("check", "--base", base, "--variant", variant, *arguments, timeout=timeout)


def verdicts(folder):
    families = json.loads((folder / "certificate.json").read_text())["families"]
    return {family["name"]: family["verdict"] for family in families}


def test_a_model_against_itself_passes(work, itself):
    for result, folder in itself:
        assert result.returncode == 0, result.stdout + result.stderr
        assert "0 of 10 answers differ" in result.stdout
        assert set(verdicts(folder).values()) == {"pass"}
    certificate = json.loads((itself[0][1] / "certificate.json").read_text())
    with open(os.path.join(MODEL, "model.safetensors"), "rb") as weights:
        digest = hashlib.sha256(weights.read()).hexdigest()
    assert certificate["base_hash"] == certificate["variant_hash"] == digest
    for family in certificate["families"]:
        assert family["b"] == family["c"] == 0 and not family["degraded"] and family["early"]
        assert 0.4 <= family["accuracy_base"] <= 0.97 and family["kld"] == 0
    assert (work / "some.key").stat().st_mode & 0o777 == 0o600
    page = (itself[0][1] / "report.html").read_text()
    assert "<svg" in page and "<script" not in page and "http" not in page


def test_the_same_seed_gives_the_same_report(itself):
    for name in ("report.html", "certificate.json"):
        first, second = ((folder / name).read_bytes() for _, folder in itself)
        assert first == second, f"{name}: whatever the batch"


def test_a_good_quantisation_passes(work, quantised):
    result = check("--families", "arithmetic,edit", *EASY, "--report", work / "good", "--key",
                   work / "some.key", variant=quantised("Q8_0"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert set(verdicts(work / "good").values()) == {"pass"}


def test_a_bad_quantisation_is_refused(work, quantised):
    asked = check("--families", "arithmetic,edit", *EASY, "--no-screen", "--report", work / "bad",
                  "--key", work / "some.key", variant=quantised("Q2_K"))
    assert asked.returncode == 5, asked.stdout + asked.stderr
    assert "refuse" in verdicts(work / "bad").values()
    refused = [family for family in
               json.loads((work / "bad" / "certificate.json").read_text())["families"]
               if family["verdict"] == "refuse"]
    assert all(family["degraded"] and family["b"] > family["c"] for family in refused)
    assert "Answers that were lost" in (work / "bad" / "report.html").read_text()
    screened = check("--families", "arithmetic", *EASY, "--screen-kld", 0.001, "--json", "--key",
                     work / "some.key", variant=quantised("Q2_K"))
    assert screened.returncode == 5, screened.stdout + screened.stderr
    family, = json.loads(screened.stdout)["families"]
    assert family["verdict"] == "refuse" and family["n"] == 0 and family["kld"] > 0.001


def test_what_cannot_be_certified_is_said(work):
    """The real chat model is right too rarely, and open chat has no right answers."""
    few = ["--items", 20, "--delta", 20, "--difficulty", 0, "--control-items", 2, "--json", "--key",
           work / "some.key", "--no-early-end"]
    result = check("--families", "algebra", *few, "--no-screen", base=model_path(),
                   variant=model_path())
    assert result.returncode == 4, result.stdout + result.stderr
    algebra, = json.loads(result.stdout)["families"]
    assert algebra["verdict"] == "inconclusive" and "too little to lose" in algebra["why"]
    result = check("--families", "open_chat", *few)
    assert result.returncode == 4, result.stdout + result.stderr
    chat, = json.loads(result.stdout)["families"]
    assert chat["verdict"] == "inconclusive" and chat["n"] == 0 and chat["kld"] == 0


def test_users_items(work):
    path = work / "mine.jsonl"
    with open(path, "w", encoding="utf-8") as out:
        for number in range(70):
            out.write(json.dumps({"question": f"How many is {number}?",
                                  "answer": f"#### {number}"}) + "\n")
    result = check("--gsm8k", path, "--json", "--key", work / "some.key", "--control-items", 0,
                   "--delta", 5)
    assert result.returncode in (0, 4), result.stderr
    family, = json.loads(result.stdout)["families"]
    assert family["name"] == "gsm8k" and family["n"] == 70


def test_a_tampered_certificate_is_refused(work, itself):
    key, path = work / "some.key", itself[0][1] / "certificate.json"
    good = run_puna("check", "--verify", path, "--key", key, "--variant", MODEL)
    assert good.returncode == 0 and "valid" in good.stdout, good.stderr
    text = path.read_text()
    for changed in (text.replace('"verdict": "pass"', '"verdict": "refuse"'),
                    text.replace('"n": ', '"n": 1'), text[:-3], text + " ", "{}"):
        assert changed != text
        (work / "changed.json").write_text(changed)
        result = run_puna("check", "--verify", work / "changed.json", "--key", key)
        assert result.returncode == 2 and "certificate" in result.stderr, changed[-40:]
    (work / "other.key").write_text("another key of enough bytes\n")
    result = run_puna("check", "--verify", path, "--key", work / "other.key")
    assert result.returncode == 2 and "signed with the key" in result.stderr
    result = run_puna("check", "--verify", path, "--key", key, "--variant", model_path())
    assert result.returncode == 2 and "another file" in result.stderr
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
    result = check(base=model_path(), variant=work / "words.gguf")
    assert result.returncode == 2, result.stderr
    assert "vocabular" in result.stderr or "--variant" in result.stderr, result.stderr


def test_also_as_quantize_check():
    link = os.path.join(os.path.dirname(binary()), "quantize_check")
    result = subprocess.run([link, "--help"], capture_output=True, text=True, timeout=20)
    assert result.returncode == 0 and result.stdout.startswith("usage: puna check")
    result = subprocess.run([link, "--base", "x"], capture_output=True, text=True, timeout=20)
    assert result.returncode == 2 and "--variant is missing" in result.stderr


def test_divergence(work):
    def measured(*arguments):
        result = run_puna("divergence", model_path(), "--text", README, "--chunks", 2, *arguments,
                          timeout=120)
        assert result.returncode == 0, result.stderr
        return result.stdout

    same = json.loads(measured(model_path(), "--json"))
    assert same["tokens"] == 2 * 255 and same["mean_kld"] == 0 and same["same_top"] == 1
    assert same["perplexity_ratio"] == 1 and 5 < same["base_perplexity"] < 60
    kv = json.loads(measured(model_path(), "--json", "--kv-dtype", "int8"))
    assert 0 < kv["mean_kld"] < 0.02
    small = work / "smol-Q8_0.gguf"
    assert run_puna("quantize", model_path(), small, "--type", "Q8_0").returncode == 0
    rounded = json.loads(measured(small, "--json"))
    assert 0 < rounded["mean_kld"] < 0.02 and 0.9 < rounded["same_top"] < 1
    assert rounded["kld_quantiles"]["1"] > rounded["kld_quantiles"]["0.5"] > 0
    assert "mean divergence (KLD)" in measured(small)
    (work / "short.txt").write_text("too short")
    result = run_puna("divergence", model_path(), model_path(), "--text", work / "short.txt")
    assert result.returncode == 2 and "512" in result.stderr
