# SPDX-License-Identifier: Apache-2.0
"""What `puna serve` answers, for the scripts of this folder that hold it against another program. PUNA_BINARY names it."""

import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request


def completions(model, flags, prompts, body):
    """The first choice of /v1/completions for each prompt, greedily; `body` has the other fields."""
    command = [os.environ["PUNA_BINARY"], "serve", "--model", model, "--port", "0", "--max-num-seqs", "2", *flags]
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            url = None
            for line in server.stdout:
                if found := re.match(r"listening on (\S+)", line):
                    url = found[1]
                if line.startswith("try: "):
                    break
            if url is None:
                log.seek(0)
                sys.exit(f"{model}: puna serve ended:\n{log.read()}")
            return [complete(url, {"prompt": prompt, "temperature": 0, **body}) for prompt in prompts]
        finally:
            server.terminate()
            server.wait()


def complete(url, body):
    request = urllib.request.Request(url + "/v1/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)["choices"][0]
