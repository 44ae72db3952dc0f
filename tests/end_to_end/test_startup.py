# SPDX-License-Identifier: Apache-2.0
"""What can't be served is refused before the start: exit code 2 and one line that says why."""

import json
import os
import shutil
import socket
import subprocess

import pytest
import requests

from puna_process import Puna, model_path, run_puna

MIB = 1 << 20


def refused(*flags, model=None, env=None):
    """The one line on stderr of a `puna serve` that does not start."""
    result = run_puna("serve", "--model", model or model_path(), "--port", 0, *flags, env=env)
    lines = [line for line in result.stderr.splitlines() if line.startswith("puna: ")]
    assert result.returncode == 2, result.stderr
    assert len(lines) == 1, result.stderr
    assert "listening" not in result.stdout
    return lines[0]


@pytest.fixture(scope="module")
def head():
    """The first bytes of the model: its metadata and tensor table."""
    with open(model_path(), "rb") as file:
        return file.read(8 * MIB)


def patched(tmp_path, data, old, new, count=1):
    assert old in data
    path = tmp_path / "patched.gguf"
    path.write_bytes(data.replace(old, new, count))
    return path


def test_missing_file(tmp_path):
    line = refused(model=tmp_path / "none.gguf")
    assert "--model" in line and "none.gguf" in line


def test_wrong_folder(tmp_path):
    (tmp_path / "readme.txt").write_text("no model")
    line = refused(model=tmp_path)
    assert str(tmp_path) in line and "config.json" in line


def test_not_a_model(tmp_path):
    for content in (b"", b"GGUF", b"\x7fELF" + b"\0" * 1000, b"GGUF\x03\0\0\0" + b"\xff" * 16):
        path = tmp_path / "bad.gguf"
        path.write_bytes(content)
        assert "bad.gguf" in refused(model=path)


def test_truncated(tmp_path, head):
    for size in (30, 100_000, 8 * MIB):
        path = tmp_path / "short.gguf"
        path.write_bytes(head[:size])
        assert "short.gguf" in refused(model=path)


def test_unsupported_version(tmp_path, head):
    path = patched(tmp_path, head, b"GGUF\x03", b"GGUF\x07")
    assert "patched.gguf" in refused(model=path)


def test_unsupported_architecture(tmp_path, head):
    key = b"general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0"
    path = tmp_path / "strange.gguf"
    shutil.copy(model_path(), path)
    with open(path, "r+b") as file:
        file.seek(head.index(key) + len(key))
        file.write(b"mamba")
    line = refused(model=path)
    assert "mamba" in line and "strange.gguf" in line


def test_unknown_chat_template(tmp_path):
    path = tmp_path / "strange.gguf"
    shutil.copy(model_path(), path)
    with open(path, "r+b") as file:
        data = file.read(8 * MIB)
        start = data.index(b"tokenizer.chat_template")
        template = data[start:start + 1000]
        file.seek(start)
        file.write(template.replace(b"<|im_start|>", b"<|xx_start|>"))
    line = refused(model=path)
    assert "--chat-template" in line and "strange.gguf" in line
    with Puna("--chat-template", "chatml", "--max-model-len", 256, model=path):
        pass


def test_huggingface_folder_that_lies(tmp_path):
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": -5}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "config.json" in refused(model=tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert "config.json" in refused(model=tmp_path)


def test_port_in_use():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refused("--port", port)
        assert str(port) in line and "--port" in line
        assert str(port) in refused("--admin-port", port)


@pytest.mark.parametrize("flags,fragments", [
    (["--port", "65536"], ["--port", "65536"]),
    (["--max-model-len", "0"], ["--max-model-len"]),
    (["--max-model-len", "1000000"], ["--max-model-len", "1000000"]),
    (["--max-num-seqs", "many"], ["--max-num-seqs", "many"]),
    (["--memory-budget", "lots"], ["--memory-budget", "lots"]),
    (["--memory-budget", "110%"], ["--memory-budget", "110%"]),
    (["--host-kv-memory", "1GiB"], ["--host-kv-memory", "--device cuda"]),
    (["--isa", "neon"], ["--isa", "neon"]),
    (["--kv-dtype", "fp8"], ["--kv-dtype", "fp8"]),
    (["--activations", "int4"], ["--activations", "int4"]),
    (["--device", "cuda"], ["--device"]),
    (["--frobnicate"], ["--frobnicate"]),
    (["--host", "not an address"], ["--host", "not an address"]),
    (["--tls-cert", "/no/cert.pem"], ["--tls-key"]),
    (["--tls-cert", "/no/cert.pem", "--tls-key", "/no/key.pem"], ["--tls-cert", "/no/cert.pem"]),
    (["--config", "/no/puna.toml"], ["--config", "/no/puna.toml"]),
], ids=lambda value: " ".join(value) if isinstance(value, list) else None)
def test_bad_flags(flags, fragments):
    line = refused(*flags)
    for fragment in fragments:
        assert fragment in line


def test_the_environment_forces_an_instruction_set():
    assert "PUNA_CPU" in refused(env={"PUNA_CPU": "mmx"})
    with Puna("--max-model-len", 256, env={"PUNA_CPU": "avx2"}) as server:
        assert "avx2, int8 activations" in server.log_text()
    with Puna("--max-model-len", 256, "--isa", "scalar", env={"PUNA_CPU": "mmx"}) as server:
        assert "scalar, int8 activations" in server.log_text()


@pytest.mark.parametrize("flags,summary,kv", [
    ([], "int8 activations", "bf16"),
    (["--activations", "float"], "float activations", "f32"),
    (["--activations", "int8-wide", "--kv-dtype", "int8"], "wide int8 activations", "int8"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else None)
def test_precision(flags, summary, kv):
    with Puna("--max-model-len", 256, *flags) as server:
        assert summary in server.log_text()
        assert f"  {kv}: " in server.log_text()
        answer = requests.post(server.url + "/v1/completions", timeout=60, json={
            "prompt": "The capital of France is", "temperature": 0, "max_tokens": 4}).json()
        assert answer["choices"][0]["text"].startswith(" Paris")


def test_off_loopback_needs_a_key():
    line = refused("--host", "0.0.0.0", env={"PUNA_API_KEY": ""})
    assert "--api-key" in line and "0.0.0.0" in line
    with Puna("--host", "0.0.0.0", "--api-key", "sesame", "--max-model-len", 256):
        pass


def test_a_model_that_does_not_fit_says_what_would():
    line = refused("--memory-budget", "64MiB")
    assert "--memory-budget" in line and "64.0 MiB" in line and "weights" in line
    enough = line.rsplit("at least ", 1)[1].strip()
    with Puna("--memory-budget", enough) as server:
        assert "memory plan" in server.log_text()


def test_a_context_that_does_not_fit_says_what_would():
    line = refused("--memory-budget", "250MiB", "--max-model-len", 8192)
    length = line.rsplit("--max-model-len to ", 1)[1].strip()
    with Puna("--memory-budget", "250MiB", "--max-model-len", length):
        pass


def test_config_file(tmp_path):
    path = tmp_path / "puna.toml"
    path.write_text('max-model-len = 300\napi-key = ["one", "two"]\n')
    with Puna("--config", path) as server:
        for key in ("one", "two"):
            models = requests.get(server.url + "/v1/models", timeout=10,
                                  headers={"Authorization": f"Bearer {key}"}).json()
            assert models["data"][0]["max_model_len"] == 300
    path.write_text("prot = 9000\n")
    assert "puna.toml:1" in refused("--config", path)


def test_tls(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out",
                    cert, "-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    with Puna("--tls-cert", cert, "--tls-key", key, "--max-model-len", 256) as server:
        assert server.url.startswith("https://")
        answer = requests.get(server.url.replace("127.0.0.1", "localhost") + "/v1/models",
                              verify=str(cert), timeout=10)
        assert answer.status_code == 200
    os.truncate(cert, 100)
    assert "--tls-cert" in refused("--tls-cert", cert, "--tls-key", key)
