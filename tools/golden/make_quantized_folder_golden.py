# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/quantized_folder: one linear layer in each quantised layout that Puna reads.

  <NAME>.safetensors  the layer "m" as the layout stores it, and "expected": its weight in float32, [out, in]
  <NAME>.json         the "quantization_config" that goes with it

Codes, zero points and scales are random; `expected` is computed from them directly, the layout by packing loops that
follow AutoAWQ, AutoGPTQ and compressed-tensors.
Run: python tools/golden/make_quantized_folder_golden.py   (needs numpy, ml_dtypes)
"""

import json
import os
import struct

import ml_dtypes
import numpy as np

FOLDER = os.path.join(os.path.dirname(__file__), "..", "..", "tests", "golden", "quantized_folder")
OUT, IN, GROUP = 24, 128, 32
NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int8": "I8", "int32": "I32", "int64": "I64",
         "float8_e4m3fn": "F8_E4M3"}


def save(name, tensors, config):
    header, data = {}, b""
    for key, array in tensors.items():
        raw = np.ascontiguousarray(array).tobytes()
        header[key] = {"dtype": NAMES[str(array.dtype)], "shape": list(array.shape),
                       "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(FOLDER, name + ".safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)
    with open(os.path.join(FOLDER, name + ".json"), "w") as file:
        json.dump({"quantization_config": config}, file, indent=1)
        file.write("\n")


def pack(codes, axis, order=range(8)):
    """Eight 4-bit codes along `axis` in an int32; nibble i holds the code at order[i]."""
    codes = np.moveaxis(codes, axis, -1).astype(np.uint32)
    codes = codes.reshape(*codes.shape[:-1], -1, 8)
    words = np.zeros(codes.shape[:-1], np.uint32)
    for nibble, position in enumerate(order):
        words |= codes[..., position] << np.uint32(4 * nibble)
    return np.moveaxis(words.view(np.int32), -1, axis)


def awq_and_gptq(rng):
    q = rng.integers(0, 16, (IN, OUT))
    zeros = rng.integers(1, 16, (IN // GROUP, OUT))
    scales = rng.uniform(0.001, 0.1, (IN // GROUP, OUT)).astype(np.float16)
    plain = np.arange(IN) // GROUP
    mixed = rng.permutation(plain)

    def expected(groups):
        return ((q - zeros[groups]) * scales[groups].astype(np.float32)).astype(np.float32).T

    save("awq", {"m.qweight": pack(q, 1, (0, 2, 4, 6, 1, 3, 5, 7)), "m.qzeros": pack(zeros, 1, (0, 2, 4, 6, 1, 3, 5, 7)),
                 "m.scales": scales, "expected": expected(plain)},
         {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"})
    for name, groups, version, shift in (("gptq_v1", plain, "gptq", 1), ("gptq_v2_desc_act", mixed, "gptq_v2", 0)):
        save(name, {"m.qweight": pack(q, 0), "m.qzeros": pack(zeros - shift, 1), "m.scales": scales,
                    "m.g_idx": groups.astype(np.int32), "expected": expected(groups)},
             {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": groups is mixed,
              "checkpoint_format": version})


def compressed_tensors(rng):
    config = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
    q = rng.integers(-8, 8, (OUT, IN))
    scales = rng.uniform(0.001, 0.1, (OUT, IN // GROUP)).astype(ml_dtypes.bfloat16)
    wide = np.repeat(scales.astype(np.float32), GROUP, axis=1)
    shape = np.array([OUT, IN], np.int64)
    save("int4", {"m.weight_packed": pack(q + 8, 1), "m.weight_scale": scales, "m.weight_shape": shape,
                  "expected": (q * wide).astype(np.float32)}, config)
    zeros = rng.integers(0, 16, (OUT, IN // GROUP))
    save("int4_zeros", {"m.weight_packed": pack(q + 8, 1), "m.weight_scale": scales, "m.weight_shape": shape,
                        "m.weight_zero_point": pack(zeros, 0),
                        "expected": ((q + 8 - np.repeat(zeros, GROUP, axis=1)) * wide).astype(np.float32)}, config)
    q8 = rng.integers(-128, 128, (OUT, IN)).astype(np.int8)
    channel = rng.uniform(0.0002, 0.01, (OUT, 1)).astype(ml_dtypes.bfloat16)
    save("int8", {"m.weight": q8, "m.weight_scale": channel,
                  "expected": (q8 * channel.astype(np.float32)).astype(np.float32)},
         {"quant_method": "compressed-tensors", "format": "int-quantized"})


def fp8(rng):
    codes = rng.integers(0, 255, (OUT, IN)).astype(np.uint8)
    codes[codes == 0x7F] = 0  # no NaN
    weight = codes.view(ml_dtypes.float8_e4m3fn)
    channel = rng.uniform(0.0002, 0.01, (OUT, 1)).astype(np.float32)
    save("fp8", {"m.weight": weight, "m.weight_scale": channel.astype(ml_dtypes.bfloat16),
                 "expected": weight.astype(np.float32) * channel.astype(ml_dtypes.bfloat16).astype(np.float32)},
         {"quant_method": "compressed-tensors", "format": "float-quantized"})
    one = np.float32(0.00390625)
    save("modelopt_fp8", {"m.weight": weight, "m.weight_scale": np.array(one), "m.input_scale": np.array(np.float32(1)),
                          "expected": weight.astype(np.float32) * one},
         {"quant_method": "modelopt", "quant_algo": "FP8"})


def main():
    os.makedirs(FOLDER, exist_ok=True)
    rng = np.random.default_rng(20240701)
    awq_and_gptq(rng)
    compressed_tensors(rng)
    fp8(rng)


if __name__ == "__main__":
    main()
