# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/formats: files written by the gguf and safetensors Python packages.

  all_values.gguf               every metadata type, nested arrays and three tensors; gguf_writer_test
                                writes the same contents and compares all bytes
  split-0000N-of-00003.gguf     the same for shards
  mixed.safetensors             one tensor of each dtype that Puna reads, a scalar and an empty one
  llama3_rope.json              transformers' llama3 frequencies for several settings
Run: python tools/golden/make_formats_golden.py   (needs gguf, safetensors, torch, transformers)
"""

import glob
import json
import os

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

FOLDER = os.path.join(os.path.dirname(__file__), "..", "..", "tests", "golden", "formats")
VALUE = gguf.GGUFValueType


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_all_values():
    writer = gguf.GGUFWriter(os.path.join(FOLDER, "all_values.gguf"), "llama")
    for name, value in {"u8": 200, "i8": -100, "u16": 60000, "i16": -30000, "u32": 4000000000,
                        "i32": -2000000000, "u64": 2**63 + 1, "i64": -(2**62)}.items():
        kind = {"u": "UINT", "i": "INT"}[name[0]] + name[1:]
        writer.add_key_value("test." + name, value, VALUE[kind])
    writer.add_key_value("test.f32", 0.1, VALUE.FLOAT32)
    writer.add_key_value("test.f64", 0.1, VALUE.FLOAT64)
    writer.add_bool("test.bool", True)
    writer.add_string("test.string", "Grüße, 世界")
    writer.add_array("test.strings", ["one", "two", "three"])
    writer.add_array("test.ints", [1, -2, 3])
    writer.add_array("test.floats", [0.5, -1.5])
    writer.add_array("test.bools", [True, False, True])
    writer.add_array("test.nested", [[1, 2], [3]])
    writer.add_custom_alignment(64)
    writer.add_tensor("a.weight", np.arange(96, dtype=np.float32).reshape(3, 32))
    writer.add_tensor("b.weight", np.arange(40, dtype=np.float16))
    quantised = gguf.quantize(np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32),
                              gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("c.weight", quantised, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    finish(writer)


def make_split():
    for old in glob.glob(os.path.join(FOLDER, "split-*.gguf")):
        os.remove(old)
    writer = gguf.GGUFWriter(os.path.join(FOLDER, "split.gguf"), "llama", split_max_tensors=2)
    writer.add_name("split")
    for i in range(5):
        writer.add_tensor(f"t{i}", np.full(8, i, dtype=np.float32))
    finish(writer)


def make_safetensors():
    tensors = {"f32": torch.arange(6, dtype=torch.float32).reshape(2, 3),
               "f16": torch.tensor([1.5, -2.5], dtype=torch.float16),
               "bf16": torch.full((3,), 0.25, dtype=torch.bfloat16),
               "scalar": torch.tensor(7.0), "empty": torch.zeros((0, 4))}
    save_file(tensors, os.path.join(FOLDER, "mixed.safetensors"), metadata={"format": "pt"})


def make_rope():
    cases = []
    for theta, head_dim, factor, low, high, original in [
            (500000.0, 128, 8.0, 1.0, 4.0, 8192), (500000.0, 64, 32.0, 1.0, 4.0, 8192),
            (500000.0, 16, 8.0, 1.0, 4.0, 256), (10000.0, 96, 4.0, 2.0, 16.0, 2048)]:
        rope = {"rope_type": "llama3", "rope_theta": theta, "factor": factor, "low_freq_factor": low,
                "high_freq_factor": high, "original_max_position_embeddings": original}
        config = LlamaConfig(hidden_size=head_dim * 4, num_attention_heads=4, head_dim=head_dim,
                             max_position_embeddings=131072, rope_parameters=dict(rope))
        frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
        cases.append({**rope, "head_dim": head_dim, "frequencies": frequencies.double().tolist()})
    with open(os.path.join(FOLDER, "llama3_rope.json"), "w", encoding="utf-8") as file:
        json.dump({"cases": cases}, file, indent=1)
        file.write("\n")


def main():
    os.makedirs(FOLDER, exist_ok=True)
    make_all_values()
    make_split()
    make_safetensors()
    make_rope()


if __name__ == "__main__":
    main()
