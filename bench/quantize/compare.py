# SPDX-License-Identifier: Apache-2.0
"""Puna's quantiser beside llama.cpp's on the same input: errors per tensor, perplexity, divergence, time.

  python bench/quantize/compare.py BASE.gguf TEXT [--types Q4_K_M,...] [--imatrix FILE] [--chunks 42]

BASE is a model in F16 or BF16. PUNA_BINARY and LLAMA_QUANTIZE name the programs; --work a folder for the files. Perplexity
and divergence are by `puna divergence` with activations and KV in f32, so that the weights alone differ: windows of 512
tokens, the second half scored. Both files of a type read the text in lock-step, so that the ratio of their perplexities is
known better than either: its standard error is that of the mean of the paired differences. Divergence from BASE is of the
first --divergence-chunks windows (0: left out). Error is sum(w * (x - y)^2) / sum(w * x^2) over all matrices, with w = 1 or, with
--imatrix, the importance of the column. Needs gguf and numpy. Prints a Markdown table.
"""

import argparse
import json
import os
import subprocess
import sys
import time

import gguf
import numpy as np

TYPES = "Q8_0,Q6_K,Q5_K_M,Q4_K_M,Q4_K_S,Q4_0,Q3_K_M,Q2_K"


def matrices(path):
    for tensor in gguf.GGUFReader(path).tensors:
        if len(tensor.shape) > 1 and tensor.shape[1] > 1:
            yield tensor.name, tensor.tensor_type.name, tensor


def values(tensor):
    return gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)


def read_importance(path):
    """Column importance by weight, from a GGUF imatrix."""
    if not path:
        return {}
    tensors = {t.name: t.data.astype(np.float64).ravel() for t in gguf.GGUFReader(path).tensors}
    end = ".in_sum2"
    return {name[:-len(end)]: sums / tensors[name[:-len(end)] + ".counts"][0]
            for name, sums in tensors.items() if name.endswith(end)}


def errors(base, path, importance):
    """By tensor: (type, weighted error, weighted squares)."""
    result = {}
    for name, kind, tensor in matrices(path):
        x = values(base[name])
        w = importance.get(name, np.ones(x.shape[-1]))
        result[name] = (kind, float((((x - values(tensor)) ** 2) * w).sum()), float((x * x * w).sum()))
    return result


def timed(command):
    began = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}")
    return time.monotonic() - began


def quantise(kind, options, out):
    """Both files and the seconds that they took."""
    puna = [os.environ["PUNA_BINARY"], "quantize", options.base, out["puna"], "--type", kind,
            "--threads", str(options.threads)]
    llama = [os.environ["LLAMA_QUANTIZE"]]
    if options.imatrix:
        puna += ["--imatrix", options.imatrix]
        llama += ["--imatrix", options.imatrix]
    llama += [options.base, out["llama"], kind, str(options.threads)]
    return {"puna": timed(puna), "llama": timed(llama)}


def divergence(options, base, variant, chunks):
    command = [os.environ["PUNA_BINARY"], "divergence", "--base", base, "--variant", variant, "--text", options.text,
               "--chunks", str(chunks), "--threads", str(options.threads), "--activations", "float",
               "--kv-dtype", "f32", "--base-kv-dtype", "f32", "--json"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def compared_errors(kind, base, files, options):
    """(relative errors by who, the worst tensor's ratio, its name, whether all types are the same)."""
    importance = read_importance(options.imatrix)
    found = {who: errors(base, files[who], importance) for who in files}
    worst, worst_name, same_types = 0.0, "", True
    for name, (tensor_type, error, _) in found["puna"].items():
        their_type, their_error, _ = found["llama"][name]
        same_types = same_types and tensor_type == their_type
        if their_error > 0 and error / their_error > worst:
            worst, worst_name = error / their_error, name
        if options.per_tensor:
            print(f"{kind} {name} {tensor_type} {their_type} {error:.6g} {their_error:.6g}", file=sys.stderr)
    total = {who: sum(e for _, e, _ in found[who].values()) / sum(s for _, _, s in found[who].values()) for who in files}
    return total, worst, worst_name, same_types


def from_base(options, files):
    """Four columns: mean divergence and share of equal likeliest tokens, each of both."""
    if options.divergence_chunks == 0:
        return "– | – | – | –"
    of = [divergence(options, options.base, files[who], options.divergence_chunks) for who in ("puna", "llama")]
    return " | ".join([f"{one['mean_kld']:.4f}" for one in of] + [f"{100 * one['same_top']:.1f} %" for one in of])


def row(kind, base, options):
    files = {who: os.path.join(options.work, f"{who}-{kind}.gguf") for who in ("puna", "llama")}
    seconds = quantise(kind, options, files)
    total, worst, worst_name, same_types = compared_errors(kind, base, files, options)
    pair = divergence(options, files["llama"], files["puna"], options.chunks)
    ratio = total["puna"] / total["llama"] if total["llama"] else 1.0
    return pair["tokens"], (
        f"| {kind}{'' if same_types else ' (types differ)'} | {total['puna']:.3e} | {total['llama']:.3e} | {ratio:.3f} "
        f"| {worst:.3f} {worst_name} | {pair['variant_perplexity']:.3f} | {pair['base_perplexity']:.3f} "
        f"| {pair['perplexity_ratio']:.4f} ± {pair['perplexity_ratio_error']:.4f} "
        f"| {from_base(options, files)} | {seconds['puna']:.1f} | {seconds['llama']:.1f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("text")
    parser.add_argument("--types", default=TYPES)
    parser.add_argument("--imatrix", default="")
    parser.add_argument("--chunks", type=int, default=42)
    parser.add_argument("--divergence-chunks", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", default=".")
    parser.add_argument("--per-tensor", action="store_true")
    options = parser.parse_args()
    base = {name: tensor for name, _, tensor in matrices(options.base)}
    print("| type | error puna | error llama.cpp | ratio | worst tensor | perplexity puna | llama.cpp | ratio "
          "| divergence puna | llama.cpp | same top puna | llama.cpp | s puna | s llama.cpp |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for kind in options.types.split(","):
        positions, line = row(kind, base, options)
        print(line, flush=True)
    print(f"\n{positions} positions")


if __name__ == "__main__":
    main()
