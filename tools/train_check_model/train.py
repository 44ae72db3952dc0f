#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains the check model on generated items for a given time, scores it, and writes a Hugging Face folder.

  python3 train.py --items path/to/puna_items --tokenizer tokenizer.json --out FOLDER --seconds 480
"""
import argparse
import json
import multiprocessing
import os
import queue
import subprocess
import tempfile
import threading
import time

import torch

import data
import model as models

CHECK_SEED = 20261128


class Muon(torch.optim.Optimizer):
    """Momentum whose matrices are made orthogonal by Newton-Schulz iterations, same shapes together."""

    def __init__(self, params, lr, momentum=0.95):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            by_shape = {}
            for p in group["params"]:
                by_shape.setdefault(tuple(p.shape), []).append(p)
            for shape, params in by_shape.items():
                state = self.state[params[0]]
                grads = torch.stack([p.grad for p in params])
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(grads)
                state["momentum"].lerp_(grads, 1 - group["momentum"])
                update = grads.lerp(state["momentum"], group["momentum"])
                update = orthogonal(update) * max(1, shape[0] / shape[1]) ** 0.5
                for p, u in zip(params, update):
                    p.mul_(1 - group["lr"] * 0.01).add_(u.to(p.dtype), alpha=-group["lr"])


def orthogonal(g):
    x = g.to(torch.bfloat16) if g.is_cuda else g.clone()
    is_tall = x.shape[-2] > x.shape[-1]
    if is_tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.mT if is_tall else x


def weights_of(ids, prompt, whole, of_prompt=0.02):
    """The weight of predicting each token but the first: answers count whole, prompts a little."""
    place = torch.arange(1, ids.shape[1], device=ids.device)
    return (place < whole[:, None]) * torch.where(place >= prompt[:, None], 1.0, of_prompt)


def loaded(folder, tokens, device):
    """Batches on the device, read ahead by a thread."""
    ahead = queue.Queue(maxsize=8)

    def fill():
        for ids, prompt, whole in data.batches(folder, tokens):
            tensors = [torch.from_numpy(part.astype("int64")) for part in (ids, prompt, whole)]
            if device == "cuda":
                tensors = [t.pin_memory() for t in tensors]
            ahead.put([t.to(device, non_blocking=True) for t in tensors])

    threading.Thread(target=fill, daemon=True).start()
    while True:
        yield ahead.get()


def train(args, device):
    torch.manual_seed(1)
    model = models.Llama().to(device)
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    vectors = [p for p in model.blocks.parameters() if p.ndim < 2] + [model.last_norm]
    groups = [{"params": [model.embedding.weight], "lr": 3e-3}, {"params": vectors, "lr": 3e-3}]
    optimizers = [torch.optim.AdamW(groups, betas=(0.9, 0.97), weight_decay=0.0), Muon(matrices, lr=args.rate)]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    loss_of = torch.compile(model.loss, dynamic=False) if args.compile else model.loss
    steps = tokens = 0
    start = time.time()
    shown = start
    for ids, prompt, whole in loaded(args.rows, args.batch_tokens, device):
        if steps == len(data.LENGTHS) * 4:  # compiled by now
            start = time.time()
        done = (time.time() - start) / args.seconds
        if done >= 1 and steps > len(data.LENGTHS) * 4:
            break
        # Warm up over the first 1 %, hold, and fall to nothing over the last 60 %.
        scale = min(1, steps / 200, (1.0 - done) / 0.6)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * max(scale, 1e-4)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = loss_of(ids, weights_of(ids, prompt, whole))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad(set_to_none=True)
        steps += 1
        tokens += ids.numel()
        if time.time() - shown > args.show_every:
            shown = time.time()
            print(f"{shown - start:6.1f} s  step {steps}  {tokens / 1e6:.0f} M tokens  loss {loss.item():.4f}  "
                  f"waiting files {len(os.listdir(args.rows))}", flush=True)
    print(f"{steps} steps, {tokens / 1e6:.0f} M tokens in {time.time() - start:.0f} s", flush=True)
    return model


def evaluate(args, model, tokenizer, device):
    """Answers to check items, in a file that puna_items scores."""
    for p in model.parameters():  # what the exported file holds
        p.data = p.data.to(torch.bfloat16).float()
    jobs = []
    for family, difficulty in data.MIX:
        for item in data.make_items(args.items, family, CHECK_SEED, args.check_items, difficulty, train=False):
            ids = tokenizer.encode(data.prompt_text(item["messages"])).ids
            jobs.append((item, ids, len(tokenizer.encode(item["oracle"]).ids)))
    jobs.sort(key=lambda job: len(job[1]) + job[2])
    path = f"{args.out}/answers.jsonl"
    with open(path, "w") as file:
        for begin in range(0, len(jobs), args.check_batch):
            batch = jobs[begin:begin + args.check_batch]
            room = max(job[2] for job in batch) + 16
            answers = model.answer([job[1] for job in batch], room, device)
            for (item, _, _), answer in zip(batch, answers):
                line = {key: item[key] for key in ("family", "seed", "index", "difficulty")}
                line["answer"] = tokenizer.decode(answer, skip_special_tokens=False)
                file.write(json.dumps(line) + "\n")
    table = subprocess.run([args.items, "score", path], capture_output=True, text=True)
    lines = sorted(table.stdout.splitlines())
    print("\n".join(lines), table.stderr, flush=True)
    open(f"{args.out}/scores.txt", "w").write("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--batch-tokens", type=int, default=65536)
    parser.add_argument("--workers", type=int, default=13)
    parser.add_argument("--per-unit", type=int, default=data.ITEMS_PER_UNIT)
    parser.add_argument("--check-items", type=int, default=400)
    parser.add_argument("--check-batch", type=int, default=2048)
    parser.add_argument("--show-every", type=float, default=10)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    os.makedirs(args.out, exist_ok=True)
    args.rows = tempfile.mkdtemp()
    workers = [multiprocessing.get_context("spawn").Process(
        target=data.work, args=(args.items, args.tokenizer, args.rows, i, args.workers, 3, args.per_unit), daemon=True)
        for i in range(args.workers)]
    for worker in workers:
        worker.start()
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(args.tokenizer)
    model = train(args, device)
    for worker in workers:
        worker.kill()
    models.export(model, args.tokenizer, args.out)
    evaluate(args, model, tokenizer, device)


if __name__ == "__main__":
    main()
