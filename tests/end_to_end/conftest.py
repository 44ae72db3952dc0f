# SPDX-License-Identifier: Apache-2.0
import os

import openai
import pytest

from puna_process import Puna


def pytest_configure(config):
    missing = [name for name in ("PUNA_BINARY", "PUNA_TEST_MODEL") if not os.environ.get(name)]
    if missing:
        raise pytest.UsageError(f"set {' and '.join(missing)} (tests/end_to_end/README.md)")


@pytest.fixture(scope="session")
def server():
    """The server that most tests share: all defaults but the context's length."""
    with Puna("--max-model-len", 2048, "--admin-port", 0) as running:
        yield running


@pytest.fixture(scope="session")
def client(server):
    with openai.OpenAI(base_url=server.url + "/v1", api_key="unused", max_retries=0,
                       timeout=60) as made:
        yield made
