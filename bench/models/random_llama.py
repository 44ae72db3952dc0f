#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a Llama of a real shape with random weights, in f16 or bf16, as GGUF: for measuring speed and memory where
the real weights can't be had.

  random_llama.py 1b OUT.gguf [--tokenizer-from MODEL.gguf] [--vocab N] [--context N] [--type bf16] [--repeat]

With --tokenizer-from the tokenizer and the vocabulary's size come from a real model, so the file can be
served (--vocab adds unused tokens); without it there is no tokenizer, which is enough for `puna bench engine`.
One tensor at a time is in memory. --repeat draws 4 million values and repeats them: a file of 16 GB is there in
seconds, for measuring how it is read. Needs `pip install gguf numpy`; quantise the file with llama-quantize."""

import argparse
from dataclasses import dataclass

import gguf
import numpy as np


@dataclass(frozen=True)
class Shape:
    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool


SHAPES = {
    "tiny": Shape(4, 512, 1536, 8, 4, 64, 32000, True),
    "1b": Shape(16, 2048, 8192, 32, 8, 64, 128256, True),
    "3b": Shape(28, 3072, 8192, 24, 8, 128, 128256, True),
    "8b": Shape(32, 4096, 14336, 32, 8, 128, 128256, False),
}
REPEATED = 1 << 22  # values


def tensors(shape, vocab):
    """(name, dimensions) in file order; a vector is a norm and stays f32."""
    yield "token_embd.weight", (vocab, shape.hidden)
    yield "output_norm.weight", (shape.hidden,)
    if not shape.tied:
        yield "output.weight", (vocab, shape.hidden)
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        yield block + "attn_norm.weight", (shape.hidden,)
        yield block + "attn_q.weight", (queries, shape.hidden)
        yield block + "attn_k.weight", (keys, shape.hidden)
        yield block + "attn_v.weight", (keys, shape.hidden)
        yield block + "attn_output.weight", (shape.hidden, queries)
        yield block + "ffn_norm.weight", (shape.hidden,)
        yield block + "ffn_gate.weight", (shape.ffn, shape.hidden)
        yield block + "ffn_up.weight", (shape.ffn, shape.hidden)
        yield block + "ffn_down.weight", (shape.hidden, shape.ffn)


def in_16_bits(values, kind):
    if kind == "f16":
        return values.astype(np.float16)
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)  # nearest, ties to even; none is a NaN


def values(random, dimensions, kind, repeat):
    if len(dimensions) == 1:
        return np.ones(dimensions, dtype=np.float32)
    # Half of what keeps a row's variance: logits stay finite through any number of layers.
    scale = np.float32(0.5 / np.sqrt(dimensions[-1]))
    drawn = min(np.prod(dimensions), REPEATED) if repeat else np.prod(dimensions)
    drawn = in_16_bits(random.standard_normal(drawn, dtype=np.float32) * scale, kind)
    return np.resize(drawn, dimensions)


def copy_tokenizer(writer, path, vocab):
    """Copies every tokenizer key, with unused tokens up to `vocab`; returns the number of tokens."""
    fields = gguf.GGUFReader(path).fields
    tokens = len(fields["tokenizer.ggml.tokens"].contents())
    if vocab and vocab < tokens:
        raise SystemExit(f"--vocab {vocab}: {path} has {tokens} tokens")
    unused = range(tokens, vocab or tokens)
    more = {"tokens": [f"<unused{i}>" for i in unused], "scores": [0.0 for _ in unused],
            "token_type": [int(gguf.TokenType.UNUSED) for _ in unused]}
    for key, field in fields.items():
        if key.startswith("tokenizer."):
            kind = field.types[0]
            is_array = kind == gguf.GGUFValueType.ARRAY
            contents = field.contents()
            if is_array:
                contents = contents + more.get(key.removeprefix("tokenizer.ggml."), [])
            writer.add_key_value(key, contents, kind, field.types[1] if is_array else None)
    return tokens + len(unused)


def write(name, path, tokenizer_from, vocab, context, kind, repeat):
    shape = SHAPES[name]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("random-" + name)
    writer.add_block_count(shape.layers)
    writer.add_context_length(context)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500000.0)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if kind == "f16" else gguf.LlamaFileType.MOSTLY_BF16)
    if tokenizer_from:
        vocab = copy_tokenizer(writer, tokenizer_from, vocab)
    else:
        vocab = vocab or shape.vocab
        writer.add_tokenizer_model("none")
    writer.add_vocab_size(vocab)
    for tensor, dimensions in tensors(shape, vocab):
        vector = len(dimensions) == 1
        stored = gguf.GGMLQuantizationType[("f32" if vector else kind).upper()]
        writer.add_tensor_info(tensor, dimensions, np.dtype(np.float16), int(np.prod(dimensions)) * (4 if vector else 2),
                               raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.default_rng(0)
    for _, dimensions in tensors(shape, vocab):
        writer.write_tensor_data(values(random, dimensions, kind, repeat))
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("out")
    parser.add_argument("--tokenizer-from", metavar="MODEL.gguf")
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--vocab", type=int)
    parser.add_argument("--type", choices=("f16", "bf16"), default="f16")
    parser.add_argument("--repeat", action="store_true")
    arguments = parser.parse_args()
    write(arguments.shape, arguments.out, arguments.tokenizer_from, arguments.vocab, arguments.context, arguments.type,
          arguments.repeat)


if __name__ == "__main__":
    main()
