# SPDX-License-Identifier: Apache-2.0
"""Starts the built `puna`, waits until it listens, and stops it again."""

import os
import re
import signal
import subprocess
import tempfile
import threading
import time

MODEL_NAME = "smol"


def binary():
    return os.environ["PUNA_BINARY"]


def model_path():
    return os.environ["PUNA_TEST_MODEL"]


def run_puna(*arguments, stdin=None, env=None, timeout=60):
    """Runs `puna` to its end; for sub-commands and for starts that must fail."""
    environment = {**os.environ, **(env or {})}
    return subprocess.run([binary(), *map(str, arguments)], input=stdin, capture_output=True,
                          text=True, timeout=timeout, env=environment)


class Puna:
    """A running `puna serve`. `with Puna("--max-num-seqs", 4) as server: server.url ...`

    `config`: a file with a [[model]], which says what the model and its name are.
    """

    def __init__(self, *flags, model=None, names=(MODEL_NAME,), port=0, env=None, config=None):
        command = [binary(), "serve", "--port", port]
        if config is None:
            command += ["--model", model or model_path()]
            for name in names:
                command += ["--served-model-name", name]
        else:
            command += ["--config", config]
        self.log = tempfile.NamedTemporaryFile("w+", prefix="puna-log-")
        self.started = time.monotonic()
        self.process = subprocess.Popen([str(part) for part in [*command, *flags]], text=True,
                                        stdout=subprocess.PIPE, stderr=self.log,
                                        env={**os.environ, **(env or {})})
        self.lines = []
        self.url = self.admin_url = None
        self._wait_until_listening()

    def _wait_until_listening(self, timeout_s=60):
        watchdog = threading.Timer(timeout_s, self.process.kill)
        watchdog.start()
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.match(r"listening on (\S+)", line):
                self.url = found[1]
            if found := re.match(r"admin on (\S+)", line):
                self.admin_url = found[1]
            if line.startswith("try: "):
                break
        watchdog.cancel()
        if self.url is None:
            self.process.wait()
            raise RuntimeError(f"puna serve ended with {self.process.returncode}: {self.log_text()}")

    @property
    def host_and_port(self):
        host, port = self.url.split("://")[1].rsplit(":", 1)
        return host.strip("[]"), int(port)

    def log_text(self):
        self.log.flush()
        with open(self.log.name, encoding="utf-8", errors="replace") as text:
            return text.read()

    def status_bytes(self, field):
        """A line of /proc/PID/status, such as VmRSS, in bytes."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) * 1024
        raise KeyError(field)

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout=60):
        return self.process.wait(timeout)

    def close(self):
        """Ends the server as an operator would; its exit code says whether it was well."""
        if self.process.poll() is None:
            self.terminate()
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process.stdout.close()
        return code

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        code = self.close()
        if kind is None:
            assert code == 0, f"puna serve ended with {code}:\n{self.log_text()}"
        self.log.close()
