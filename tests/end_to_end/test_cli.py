# SPDX-License-Identifier: Apache-2.0
"""`puna run`, `puna inspect`, help and version, as a person or a script uses them."""

import json
import os
import pty
import select
import signal
import subprocess
import time

import pytest

from puna_process import binary, model_path, run_puna


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["run", "--help"],
                                       ["inspect", "--help"], ["bench", "--help"], ["quantize", "--help"],
                                       ["bench", "engine", "--help"],
                                       ["bench", "kernels", "--help"]], ids=" ".join)
def test_help_fits_a_screen(arguments):
    result = run_puna(*arguments)
    assert result.returncode == 0 and result.stderr == ""
    lines = result.stdout.splitlines()
    assert 3 < len(lines) <= 24
    assert max(map(len, lines)) <= 100


def test_version():
    assert run_puna("--version").stdout.startswith("puna ")


@pytest.mark.parametrize("arguments", [["fly"], ["run"], ["inspect"], ["--frobnicate"],
                                       ["run", "none.gguf", "hi"], ["inspect", "none.gguf"],
                                       ["quantize", "none.gguf", "out.gguf", "--type", "Q4_0"],
                                       ["quantize", "none.gguf", "out.gguf", "--type", "Q4"],
                                       ["run", "none.gguf", "--temperature", "hot"]], ids=" ".join)
def test_bad_usage_is_one_line_and_exit_code_2(arguments):
    result = run_puna(*arguments, stdin="")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("puna: ")
    assert result.stdout == ""


def test_run_answers_once():
    first = run_puna("run", model_path(), "Name the capital of France.", "--temperature", 0,
                     "--max-tokens", 30)
    assert first.returncode == 0, first.stderr
    assert "Paris" in first.stdout
    again = run_puna("run", model_path(), "--temperature", 0, "--max-tokens", 30,
                     stdin="Name the capital of France.\n")
    assert again.stdout == first.stdout


def test_run_raw_continues_the_text():
    result = run_puna("run", model_path(), "The capital of France is", "--raw", "--temperature", 0,
                      "--max-tokens", 6)
    assert "Paris" in result.stdout


def test_run_seeds():
    def story(seed):
        return run_puna("run", model_path(), "Tell me a story.", "--temperature", 1, "--seed", seed,
                        "--max-tokens", 16).stdout

    assert story(1) == story(1) != story(2)


def test_run_system_message():
    result = run_puna("run", model_path(), "Who are you?", "--system",
                      "You are a pirate called Captain Redbeard.", "--temperature", 0,
                      "--max-tokens", 40)
    assert "Redbeard" in result.stdout or "irate" in result.stdout or "Captain" in result.stdout


def test_run_refuses_an_empty_or_too_long_prompt():
    assert run_puna("run", model_path(), stdin="").returncode == 2
    result = run_puna("run", model_path(), "--max-model-len", 64, stdin="word " * 500)
    assert result.returncode == 2 and "64" in result.stderr


class Terminal:
    """`puna run MODEL` with a terminal of its own."""

    def __init__(self, *flags):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen([binary(), "run", model_path(), *map(str, flags)],
                                        stdin=slave, stdout=slave, stderr=slave,
                                        start_new_session=True, preexec_fn=self._own_terminal)
        os.close(slave)
        self.seen = ""

    @staticmethod
    def _own_terminal():
        import fcntl
        import termios
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def send(self, text):
        os.write(self.master, text.encode())

    def read_until(self, wanted, timeout_s=60):
        """What came since the last call, up to and with `wanted`."""
        end = time.monotonic() + timeout_s
        while wanted not in self.seen:
            assert time.monotonic() < end, f"no {wanted!r} in {self.seen!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.master, 65536).decode(errors="replace")
                except OSError:
                    raise AssertionError(f"ended before {wanted!r}: {self.seen!r}") from None
        index = self.seen.index(wanted) + len(wanted)
        found, self.seen = self.seen[:index], self.seen[index:]
        return found

    def wait(self):
        code = self.process.wait(20)
        os.close(self.master)
        return code


def test_a_chat_in_the_terminal():
    chat = Terminal("--temperature", 0, "--max-tokens", 60)
    chat.read_until("> ")
    chat.send("Name the capital of France.\n")
    chat.read_until("\n")
    assert "Paris" in chat.read_until("\n> ")
    chat.send("And of Italy?\n")
    chat.read_until("\n")
    assert "Rome" in chat.read_until("\n> "), "the history is part of the prompt"
    chat.send("/reset\n")
    chat.read_until("new conversation")
    chat.read_until("> ")
    chat.send("/help\n")
    chat.read_until("/exit")
    chat.read_until("> ")
    chat.send("/nonsense\n")
    chat.read_until("there is no /nonsense")
    chat.read_until("> ")
    chat.send("/exit\n")
    assert chat.wait() == 0


def test_ctrl_c_stops_the_answer_and_then_the_chat():
    chat = Terminal("--temperature", 0.9, "--seed", 1, "--max-tokens", 500)
    chat.read_until("> ")
    chat.send("Write a very long story about a dragon, with many chapters.\n")
    chat.read_until("\n")
    while not chat.seen:
        chat.read_until("")
        time.sleep(0.05)
        if select.select([chat.master], [], [], 0)[0]:
            break
    chat.send("\x03")
    chat.read_until("(stopped)")
    chat.read_until("> ")
    chat.send("Say hello.\n")  # the chat goes on
    chat.read_until("\n")
    chat.read_until("\n> ")
    chat.send("\x03")
    chat.read_until("Ctrl-C again")
    chat.send("\x03")
    assert chat.wait() == 0


def test_ctrl_d_leaves():
    chat = Terminal()
    chat.read_until("> ")
    chat.send("\x04")
    assert chat.wait() == 0


def test_sigint_stops_a_single_answer():
    process = subprocess.Popen([binary(), "run", model_path(), "Write a very long story.",
                                "--temperature", "0.9", "--seed", "3"], stdout=subprocess.PIPE)
    assert process.stdout.read(10)
    process.send_signal(signal.SIGINT)
    process.stdout.read()
    assert process.wait(10) == 130


def test_inspect_for_people():
    result = run_puna("inspect", model_path())
    assert result.returncode == 0, result.stderr
    for fragment in ("GGUF", "llama", "134.5 M", "Q4_1", "30 layers", "chatml", "<|im_end|>",
                     "tied", "8192 tokens"):
        assert fragment in result.stdout, fragment
    assert "blk.0.attn_q.weight" not in result.stdout
    assert "blk.0.attn_q.weight" in run_puna("inspect", model_path(), "--tensors").stdout


def test_inspect_for_scripts():
    facts = json.loads(run_puna("inspect", model_path(), "--json", "--tensors").stdout)
    assert facts["architecture"] == "llama"
    assert facts["num_layers"] == 30 and facts["hidden_size"] == 576
    assert facts["num_heads"] == 9 and facts["num_kv_heads"] == 3 and facts["head_dim"] == 64
    assert facts["vocab_size"] == 49152 and facts["max_position"] == 8192
    assert facts["file_bytes"] == os.path.getsize(model_path())
    assert facts["chat_template"] == "chatml"
    assert facts["kv_bytes_per_token"] >= 30 * 2 * 3 * 64
    assert sum(kind["bytes"] for kind in facts["types"]) < facts["file_bytes"]
    assert sum(t["bytes"] for t in facts["tensors"]) == sum(k["bytes"] for k in facts["types"])
    assert len(facts["tensors"]) == 272
    assert {"id": 2, "text": "<|im_end|>", "role": "eos, ends an answer"} in facts["special_tokens"]
    assert "tensors" not in json.loads(run_puna("inspect", model_path(), "--json").stdout)


def test_quantize_then_answer(tmp_path):
    out = tmp_path / "q8.gguf"
    result = run_puna("quantize", model_path(), out, "--type", "Q8_0", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert {t["type"] for t in report["tensors"]} == {"Q8_0", "F32"}
    assert max(t["relative_error"] for t in report["tensors"]) < 1e-4
    assert os.listdir(tmp_path) == ["q8.gguf"]
    answer = run_puna("run", out, "Name the capital of France.", "--temperature", 0, "--max-tokens", 30)
    assert "Paris" in answer.stdout


def test_quantize_stops_without_a_trace(tmp_path):
    out = tmp_path / "q2.gguf"
    process = subprocess.Popen([binary(), "quantize", model_path(), out, "--type", "Q2_K", "--calibration", "default"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "calibrating" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert os.listdir(tmp_path) == []
