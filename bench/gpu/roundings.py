#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What each rounding between a GPU's kernels costs: mean KL divergence of the logits from those without it.

  roundings.py MODEL.gguf [bf16|f16]     needs numpy and gguf; run in the repository's root

The model's weights are rounded to bf16 first, for both sides. Tokens: the first 256 of the English text of
tests/golden/model/smollm2.bin, and 256 at random. Products and sums are in float32, as a GPU's are."""

import pathlib
import sys

import gguf
import numpy as np

ROUNDINGS = ["in front of qkv", "qkv", "rotated queries", "rotated keys", "probabilities", "attended",
             "in front of gate and up", "gate and up", "in front of down", "in front of the head"]
ENTRY_BYTES = 400  # of a position in smollm2.bin, its token first


def to_bf16(x):
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def to_f16(x):
    return x.astype(np.float16).astype(np.float32)


class Model:
    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        number = lambda key: reader.fields[f"llama.{key}"].parts[-1][0]
        self.heads, self.kv_heads = int(number("attention.head_count")), int(number("attention.head_count_kv"))
        self.eps, self.theta = float(number("attention.layer_norm_rms_epsilon")), float(number("rope.freq_base"))
        self.layers = int(number("block_count"))
        self.weights = {}
        for tensor in reader.tensors:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            self.weights[tensor.name] = to_bf16(values) if values.ndim == 2 else values

    def __getitem__(self, name):
        return self.weights[f"{name}.weight"]

    def norm(self, x, name):
        squares = (x.astype(np.float64) ** 2).mean(-1, keepdims=True)
        return (x / np.sqrt(squares + self.eps)).astype(np.float32) * self[name]

    def rotate(self, x):
        angles = np.arange(x.shape[0])[:, None] * self.theta ** (-2.0 * np.arange(x.shape[2] // 2) / x.shape[2])
        cos, sin = (f(angles)[:, None, :].astype(np.float32) for f in (np.cos, np.sin))
        even, odd = x[..., 0::2], x[..., 1::2]
        return np.stack([even * cos - odd * sin, even * sin + odd * cos], -1).reshape(x.shape)

    def logits(self, tokens, rounded, to_halves):
        half = lambda name, x: to_halves(x) if name in rounded else x
        count = len(tokens)
        mask = np.triu(np.full((count, count), -np.inf, np.float32), 1)
        x = self["token_embd"][tokens]
        for layer in range(self.layers):
            of = lambda name, layer=layer: self[f"blk.{layer}.{name}"]
            h = half("in front of qkv", self.norm(x, f"blk.{layer}.attn_norm"))
            q, k, v = (half("qkv", h @ of(name).T).reshape(count, heads, -1) for name, heads in
                       (("attn_q", self.heads), ("attn_k", self.kv_heads), ("attn_v", self.kv_heads)))
            q, k = half("rotated queries", self.rotate(q)), half("rotated keys", self.rotate(k))
            attended = np.empty_like(q)
            for head in range(self.heads):
                shared = head // (self.heads // self.kv_heads)
                scores = q[:, head] @ k[:, shared].T / np.sqrt(np.float32(q.shape[2])) + mask
                p = np.exp(scores - scores.max(-1, keepdims=True))
                attended[:, head] = half("probabilities", p) @ v[:, shared] / p.sum(-1, keepdims=True)
            x = x + half("attended", attended.reshape(count, -1)) @ of("attn_output").T
            h = half("in front of gate and up", self.norm(x, f"blk.{layer}.ffn_norm"))
            gate, up = (half("gate and up", h @ of(name).T) for name in ("ffn_gate", "ffn_up"))
            x = x + half("in front of down", gate / (1 + np.exp(-gate)) * up) @ of("ffn_down").T
        head = self["output"] if "output.weight" in self.weights else self["token_embd"]
        return half("in front of the head", self.norm(x, "output_norm")) @ head.T


def log_softmax(logits):
    logits = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def main():
    model = Model(sys.argv[1])
    to_halves = {"bf16": to_bf16, "f16": to_f16}[sys.argv[2] if len(sys.argv) > 2 else "bf16"]
    golden = np.frombuffer(pathlib.Path("tests/golden/model/smollm2.bin").read_bytes()[: 256 * ENTRY_BYTES], np.int32)
    texts = [golden[:: ENTRY_BYTES // 4], np.random.default_rng(5).integers(0, len(model["token_embd"]), 256)]
    truths = [log_softmax(model.logits(tokens, [], to_halves)) for tokens in texts]
    # Operands of products have to be 16 bits; what the library's products give, and the head's input, need not.
    needed = [name for name in ROUNDINGS if name not in ("qkv", "gate and up", "in front of the head")]
    for name, rounded in [("all", ROUNDINGS), ("operands alone", needed), *((name, [name]) for name in ROUNDINGS)]:
        divergences = []
        for tokens, truth in zip(texts, truths):
            found = log_softmax(model.logits(tokens, rounded, to_halves))
            divergences.append((np.exp(truth) * (truth - found)).sum(-1).mean())
        print(f"{name:24s} English {divergences[0]:.2e}  random {divergences[1]:.2e}", flush=True)


if __name__ == "__main__":
    main()
