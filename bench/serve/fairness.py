#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Does a tenant that floods a server get more than its share? A server of its own with two keys of one weight; the
light tenant offers 0.8 of what the server can do, the heavy one fifty times as much.

    bench/serve/fairness.py MODEL [--seconds 60] [-- flags of puna serve]

Told are both tenants' shares of the tokens (the heavy one's goal: at most 0.6, its half times 1.2).
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

PUNA = pathlib.Path(__file__).parents[2] / "build/release/bin/puna"
TENANTS = ("heavy", "light")
FLOOD = 50
LIMIT = 0.6


def bench(options, url, rate, seconds, heavy):
    command = [options.puna, "bench", "serve", "--url", url, "--rate", rate, "--duration", seconds,
               "--prompt-tokens", options.prompt_tokens, "--output-tokens", options.output_tokens, "--json", "-",
               "--tenant", f"heavy=key-heavy:{heavy}", "--tenant", "light=key-light:1"]
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SystemExit(result.stderr)
    return json.loads(result.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--puna", default=PUNA)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--prompt-tokens", default="uniform:64:192")
    parser.add_argument("--output-tokens", default="uniform:32:96")
    parser.add_argument("--saturate", type=float, default=40, help="requests/s that are surely too many")
    parser.add_argument("flags", nargs="*", help="of puna serve")
    options = parser.parse_args()

    with tempfile.NamedTemporaryFile("w", suffix=".toml") as keys:
        for name in TENANTS:
            keys.write(f'[[key]]\nname = "{name}"\nkey = "key-{name}"\n')
        keys.flush()
        command = [options.puna, "serve", "--model", options.model, "--port", 0, "--api-keys-file", keys.name,
                   *options.flags]
        server = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                  text=True)
        try:
            url = next((found[1] for line in server.stdout if (found := re.match(r"listening on (\S+)", line))), None)
            if url is None:
                raise SystemExit(f"{' '.join(map(str, command))} did not start")
            capacity = bench(options, url, options.saturate, options.seconds / 3, 1)["request_throughput"]
            report = bench(options, url, 0.8 * capacity * (FLOOD + 1), options.seconds, FLOOD)
        finally:
            server.terminate()
            server.wait(60)
    tokens = {tenant["name"]: tenant["total_input_tokens"] + tenant["total_output_tokens"]
              for tenant in report["tenants"]}
    print(f"capacity {capacity:.2f} requests/s\n\n| tenant | sent | done | refused | failed | share of tokens "
          "| TTFT p50, p99 s |\n|---|---|---|---|---|---|---|")
    for tenant in report["tenants"]:
        ttft = tenant["ttft_ms"]
        print(f"| {tenant['name']} | {tenant['requests']} | {tenant['completed']} | {tenant['refused']} "
              f"| {tenant['failed']} | {tokens[tenant['name']] / sum(tokens.values()):.3f} "
              f"| {ttft['p50'] / 1e3:.2f}, {ttft['p99'] / 1e3:.2f} |")
    sys.exit(0 if tokens["heavy"] <= LIMIT * sum(tokens.values()) else 1)


if __name__ == "__main__":
    main()
