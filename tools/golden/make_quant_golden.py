# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/quant: what the gguf Python package decodes and encodes, for quant_test
and (what rounding alone loses) encode_test.

  <TYPE>.dequant  u32 number of blocks, the blocks, then their elements as float32
  <TYPE>.encode   u32 number of elements, the elements as float32, then their blocks

Blocks to decode: random bytes with every scale field set to a finite float16, the extremes among them
(0, -0, the largest, the smallest normal, subnormals), and random bytes as they come (infinities and NaN).
Run: python tools/golden/make_quant_golden.py   (needs gguf, numpy)
"""

import os

import gguf
import numpy as np

FOLDER = os.path.join(os.path.dirname(__file__), "..", "..", "tests", "golden", "quant")
Type = gguf.GGMLQuantizationType
# The byte offsets of the float16 fields of a block.
SCALES = {
    Type.F32: [], Type.F16: [], Type.BF16: [], Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0],
    Type.Q5_1: [0, 2], Type.Q8_0: [0], Type.Q2_K: [80, 82], Type.Q3_K: [108], Type.Q4_K: [0, 2],
    Type.Q5_K: [0, 2], Type.Q6_K: [208], Type.IQ4_NL: [0], Type.IQ4_XS: [0],
}
ENCODED = [Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1]
EXTREMES = np.array([0x0000, 0x8000, 0x7BFF, 0xFBFF, 0x0400, 0x8400, 0x0001, 0x8001, 0x03FF, 0x3C00],
                    dtype=np.uint16)


def blocks_to_decode(qtype, rng):
    block_elements, block_bytes = gguf.GGML_QUANT_SIZES[qtype]
    count = 4096 // block_elements + 48
    blocks = rng.integers(0, 256, size=(count, block_bytes), dtype=np.uint8)
    finite = count - 8  # the last eight keep whatever scales the random bytes give
    for offset in SCALES[qtype]:
        scales = rng.normal(0, 0.02, finite).astype(np.float16).view(np.uint16)
        picked = rng.random(finite) < 0.4
        scales[picked] = rng.choice(EXTREMES, picked.sum())
        blocks[:finite, offset:offset + 2] = scales.reshape(-1, 1).view(np.uint8)
    return blocks


def values_to_encode(rng):
    normal = rng.normal(0, 1, 2048)
    tiny = rng.normal(0, 1, 256) * 10.0 ** rng.uniform(-9, -3, 256)
    large = rng.normal(0, 1, 256) * 10.0 ** rng.uniform(1, 4, 256)
    sparse = np.where(rng.random(256) < 0.1, rng.normal(0, 1, 256), 0.0)
    halves = rng.integers(-254, 255, 512) / 2.0  # ties of every rounding
    same = np.concatenate([np.full(32, v) for v in (0.0, -0.0, 1.0, -1.0, 0.3, 1e-8)])
    return np.concatenate([normal, tiny, large, sparse, halves, same]).astype(np.float32)


def write(name, count, *arrays):
    with open(os.path.join(FOLDER, name), "wb") as file:
        file.write(np.uint32(count).tobytes())
        for array in arrays:
            file.write(np.ascontiguousarray(array).tobytes())


def main():
    os.makedirs(FOLDER, exist_ok=True)
    rng = np.random.default_rng(20240601)
    np.seterr(all="ignore")
    for qtype in SCALES:
        blocks = blocks_to_decode(qtype, rng)
        values = gguf.dequantize(blocks, qtype).astype(np.float32)
        write(f"{qtype.name}.dequant", len(blocks), blocks, values)
    values = values_to_encode(rng)
    for qtype in ENCODED:
        write(f"{qtype.name}.encode", len(values), values, gguf.quantize(values.reshape(1, -1), qtype))


if __name__ == "__main__":
    main()
