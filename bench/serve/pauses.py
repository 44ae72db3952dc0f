#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What becomes of background requests that give way to interactive ones? Six long ones take all places of a server,
then interactive ones come in for two seconds. Told are how long both kinds took, what was paused and copied to the
host and back, and whether every answer of a background request has the text and the logprobs that it has alone.

    bench/serve/pauses.py MODEL.gguf [--prompt-tokens 3000] [--output-tokens 300] [-- flags of puna serve]
    bench/serve/pauses.py random:llama-3-8b -- --device cuda --host-kv-memory 4GiB      that shape, random weights

Exits with 1 when an answer differs. Prompts are random token ids.
"""

import argparse
import concurrent.futures
import json
import random
import sys
import time
import urllib.request

from pace import PUNA, Server, prompt_of

PLACES = 6
LONGER = 1 / 6  # of the shortest background prompt: each one than the one before
WAVES, IN_A_WAVE, BETWEEN_S = 12, 4, 0.15
INTERACTIVE = (200, 30)  # tokens in and out


def ask(port, prompt, tokens, request_class):
    """Text, logprobs, seconds."""
    body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "logprobs": 1, "ignore_eos": True}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json", "x-puna-class": request_class})
    began = time.perf_counter()
    choice = json.load(urllib.request.urlopen(request))["choices"][0]
    return choice["text"], choice["logprobs"]["token_logprobs"], time.perf_counter() - began


def metrics(port):
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return {line.split("{")[0].split()[0]: float(line.split()[-1]) for line in lines}


def crowd(port, long_prompts, options, source):
    """Answers of the background requests, and the interactive ones' seconds."""
    with concurrent.futures.ThreadPoolExecutor(PLACES + WAVES * IN_A_WAVE) as pool:
        background = [pool.submit(ask, port, prompt, options.output_tokens, "background") for prompt in long_prompts]
        time.sleep(options.head_start)
        interactive = []
        for _ in range(WAVES):
            for _ in range(IN_A_WAVE):
                prompt = prompt_of(INTERACTIVE[0], source)
                interactive.append(pool.submit(ask, port, prompt, INTERACTIVE[1], "interactive"))
            time.sleep(BETWEEN_S)
        return [answer.result() for answer in background], sorted(answer.result()[2] for answer in interactive)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--puna", default=PUNA)
    parser.add_argument("--prompt-tokens", type=int, default=3000, help="of the shortest background request")
    parser.add_argument("--output-tokens", type=int, default=300)
    parser.add_argument("--head-start", type=float, default=1.2, help="seconds before the interactive ones come")
    own_end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:own_end])
    options.flags = sys.argv[own_end + 1:]
    model = (["--random-weights", options.model.split(":")[1]] if options.model.startswith("random:")
             else ["--model", options.model])
    source = random.Random(5)
    step = int(options.prompt_tokens * LONGER)
    long_prompts = [prompt_of(options.prompt_tokens + step * i, source) for i in range(PLACES)]
    with Server("puna", [options.puna, "serve", *model, "--max-num-seqs", PLACES, *options.flags]) as server:
        among, interactive_s = crowd(server.port, long_prompts, options, source)
        told = metrics(server.port)
        alone = [ask(server.port, prompt, options.output_tokens, "background") for prompt in long_prompts]
    same = sum(a[:2] == b[:2] for a, b in zip(among, alone))
    out, back = told["puna:kv_blocks_swapped_out_total"], told["puna:kv_blocks_swapped_in_total"]
    print(f"background: {', '.join(f'{answer[2]:.2f}' for answer in among)} s\n"
          f"interactive: median {interactive_s[len(interactive_s) // 2]:.3f} s, longest {interactive_s[-1]:.3f} s\n"
          f"pauses {told['vllm:num_preemptions_total']:.0f}, blocks to the host {out:.0f}, back {back:.0f}, "
          f"allocations after the seal {told['puna:allocs_after_seal_total']:.0f}\n"
          f"the same text and logprobs as alone: {same} of {len(alone)}")
    return 0 if same == len(alone) else 1


if __name__ == "__main__":
    sys.exit(main())
