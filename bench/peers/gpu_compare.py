#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Puna beside its peers on one GPU, on the work of gpu_work.py, and the table of all.

  gpu_compare.py puna,puna-batch,vllm,transformers --puna FOLDER/puna --results FOLDER

Puna's decode steps are `puna bench engine`'s, as an engine makes them without a server; its first tokens and loads go
over HTTP (`puna serve`, `puna bench serve`), the peers' are taken in their own process. puna-batch: the loads in the class
that promises a pace of 200 ms, not 50, in steps of up to 8,192 tokens. vLLM: vllm/pack.sh."""

import argparse
import json
import pathlib
import subprocess
import sys
import time

import gpu_work

HERE = pathlib.Path(__file__).parent
MODEL = ["--random-weights", "llama-3-8b", "--device", "cuda"]
URL = "http://127.0.0.1:8099"


def json_of(command):
    return json.loads(subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout)


class Server:
    def __init__(self, program, log, flags=()):
        self.log = log
        began = time.monotonic()
        with open(log, "w", encoding="utf-8") as out:
            self.process = subprocess.Popen(
                [program, "serve", *MODEL, "--port", URL.rsplit(":", 1)[1], "--max-queued-requests", "2000",
                 "--max-queued-tokens", "8000000", "--no-prefix-cache", *flags], stdout=out, stderr=out)
        while "\nlistening" not in log.read_text():
            if self.process.poll() is not None:
                raise RuntimeError(log.read_text())
            time.sleep(0.05)
        self.ready_s = time.monotonic() - began

    def stop(self):
        self.process.terminate()
        self.process.wait()


def measure_loads(load, report, scratch):
    trace = scratch / "trace.jsonl"
    for name, lengths, output in gpu_work.LOADS:
        trace.write_text("".join(json.dumps({"at_s": 0, "prompt_tokens": length, "output_tokens": output}) + "\n"
                                 for length in lengths))
        found = json_of([*load, "--trace", trace])
        if found["completed"] != len(lengths):
            raise RuntimeError(f"{name}: {found['completed']} of {len(lengths)} done: {found['errors']}")
        report.put_load(name, found["total_output_tokens"], found["duration"])
        print(name, json.dumps({key: found[key] for key in ("duration", "tpot_ms", "itl_ms", "e2el_ms")}))


def load_command(program):
    return [program, "bench", "serve", "--url", URL, "--endpoint", "completions", "--prompt-ids", gpu_work.VOCAB,
            "--json", "-"]


def measure_puna_as_batch(program, report, scratch):
    server = Server(program, scratch / "puna-batch-serve.log", ["--max-num-batched-tokens", "8192"])
    measure_loads([*load_command(program), "--classes", "batch:1"], report, scratch)
    server.stop()


def measure_puna(program, report, scratch):
    for length in dict.fromkeys(length for _, length in gpu_work.DECODE):
        batches = [str(batch) for batch, of in gpu_work.DECODE if of == length]
        found = json_of([program, "bench", "engine", *MODEL, "--json", "--prompt", length, "--output",
                         gpu_work.DECODE_STEPS, "--batch", ",".join(batches)])
        for row in found["results"]:
            report.put_decode(row["batch"], row["prompt"], [row["step_ms_mean"]])
            print(json.dumps(row))
    server = Server(program, scratch / "puna-serve.log")
    report.put("start to ready: s", round(server.ready_s, 1))
    load = load_command(program)
    one = json_of([*load, "--bursts", "1:3", "--requests", 3, "--prompt-tokens", 512, "--output-tokens", 256])
    print("one stream over HTTP, ms a token:", json.dumps(one["tpot_ms"]))
    for length in gpu_work.FIRST_TOKEN:
        times = gpu_work.FIRST_TOKEN_TIMES + 2
        found = json_of([*load, "--bursts", "1:0.5", "--requests", times, "--prompt-tokens", length,
                         "--output-tokens", 1])
        report.put_first_token(length, [found["ttft_ms"]["p50"]])
    measure_loads(load, report, scratch)
    server.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", help="some of puna, puna-batch, vllm, transformers")
    parser.add_argument("--puna", help="the program")
    parser.add_argument("--results", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    arguments.results.mkdir(parents=True, exist_ok=True)
    paths = []
    for engine in arguments.engines.split(","):
        path = arguments.results / f"{engine}.json"
        if engine == "puna":
            measure_puna(arguments.puna, gpu_work.Report(path, "Puna"), arguments.results)
        elif engine == "puna-batch":
            measure_puna_as_batch(arguments.puna, gpu_work.Report(path, "Puna, class batch"), arguments.results)
        else:
            with open(arguments.results / f"{engine}.log", "w", encoding="utf-8") as log:
                done = subprocess.run([sys.executable, "-u", HERE / engine / "measure.py", path], stdout=log,
                                      stderr=subprocess.STDOUT, check=False)
            if done.returncode != 0:
                print(f"{engine}: exit code {done.returncode}\n{(arguments.results / f'{engine}.log').read_text()[-3000:]}")
        if path.exists():
            paths.append(path)
    print(gpu_work.table(paths))


if __name__ == "__main__":
    main()
