#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Load at 1, 2, 5 and 10 times of capacity, by `puna bench serve`: does goodput hold, are refusals quick and honest?

    bench/serve/overload.py --url http://127.0.0.1:8080 [--seconds 60] [--rounds 3] [--slo-ttft-ms 5000] [-- flags of puna bench serve]

Capacity is what the server answers a second when far more is offered. Client and server share the machine; with
--rounds the loads take turns, and each number is the median of its rounds.
Retry-After is judged best with requests of one size (--prompt-tokens 64 --output-tokens 16): a client can't see that
a place went to a smaller one than its own.
"""

import argparse
import json
import pathlib
import statistics
import subprocess

PUNA = pathlib.Path(__file__).parents[2] / "build/release/bin/puna"


def bench(options, rate, seconds):
    command = [options.puna, "bench", "serve", "--url", options.url, "--rate", rate, "--duration", seconds,
               "--prompt-tokens", options.prompt_tokens, "--output-tokens", options.output_tokens,
               "--slo-ttft-ms", options.slo_ttft_ms, "--json", "-", *options.flags]
    if options.honour:
        command.append("--honour-retry-after")
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SystemExit(result.stderr)
    return json.loads(result.stdout)


def row(name, reports):
    def median(number):
        return statistics.median(number(report) for report in reports)

    refused = sum(report["refused"] for report in reports)
    requests = sum(report["requests"] for report in reports)
    failed = sum(report["failed"] for report in reports)
    errors = [report["refusals"]["retry_after_error"] for report in reports]
    errors = [error["p50"] for error in errors if error["count"] > 0]
    off_by = f"{100 * statistics.median(errors):.0f} %" if errors else "–"
    return (f"| {name} | {median(lambda r: r['request_offered']):.1f} | {median(lambda r: r['request_throughput']):.2f} "
            f"| {median(lambda r: r['request_goodput']):.2f} | {median(lambda r: r['ttft_ms']['p99']):,.0f} "
            f"| {median(lambda r: r['ttft_over_quote']['p99']):.2f} | {median(lambda r: r['tpot_ms']['p99']):.0f} "
            f"| {refused} of {requests} | {median(lambda r: r['refusals']['latency_ms']['p99']):.1f} "
            f"| {off_by} | {failed} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--puna", default=PUNA)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--prompt-tokens", default="uniform:64:192")
    parser.add_argument("--output-tokens", default="uniform:16:48")
    parser.add_argument("--slo-ttft-ms", type=float, default=10000)
    parser.add_argument("--saturate", type=float, default=50, help="requests/s that are surely too many")
    parser.add_argument("--honour", action="store_true", help="refused clients come back")
    parser.add_argument("flags", nargs="*", help="of puna bench serve")
    options = parser.parse_args()

    capacity = bench(options, options.saturate, options.seconds / 2)["request_throughput"]
    print(f"capacity: {capacity:.2f} requests/s\n", flush=True)
    reports = {times: [] for times in (1, 2, 5, 10)}
    for _ in range(options.rounds):
        for times, own in reports.items():
            own.append(bench(options, times * capacity, options.seconds))
    print("| load | offered/s | done/s | within SLO/s | TTFT p99 ms | over the quoted p95 (p99) | TPOT p99 ms | refused | refusal p99 ms "
          "| Retry-After off by (median) | failed |\n|---|---|---|---|---|---|---|---|---|---|---|")
    for times, own in reports.items():
        print(row(f"{times} ×", own))


if __name__ == "__main__":
    main()
