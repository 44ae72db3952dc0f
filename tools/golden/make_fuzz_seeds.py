# SPDX-License-Identifier: Apache-2.0
"""Makes the seeds of the gguf, safetensors and config fuzz targets under tests/fuzz/corpus.

The smallest files that still reach every branch: a one-layer model, every value type, shards.
Run after make_formats_golden.py: python tools/golden/make_fuzz_seeds.py   (needs gguf, numpy)
"""

import json
import os
import shutil

import gguf
import numpy as np

ROOT = os.path.join(os.path.dirname(__file__), "..", "..", "tests")
SHAPES = {"token_embd.weight": (4, 4), "output_norm.weight": (4,), "rope_freqs.weight": (1,)}
LAYER = {"attn_norm": (4,), "attn_q": (4, 4), "attn_k": (2, 4), "attn_v": (2, 4), "attn_output": (4, 4),
         "ffn_norm": (4,), "ffn_gate": (4, 4), "ffn_up": (4, 4), "ffn_down": (4, 4)}


def corpus(name):
    folder = os.path.join(ROOT, "fuzz", "corpus", name)
    os.makedirs(folder, exist_ok=True)
    return folder


def make_model(path):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(8)
    writer.add_embedding_length(4)
    writer.add_block_count(1)
    writer.add_feed_forward_length(4)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_eos_token_id(3)
    for name, shape in SHAPES.items():
        writer.add_tensor(name, np.ones(shape, dtype=np.float32))
    for name, shape in LAYER.items():
        writer.add_tensor(f"blk.0.{name}.weight", np.ones(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    golden = os.path.join(ROOT, "golden")
    make_model(os.path.join(corpus("gguf"), "model"))
    for name in ("all_values", "split-00002-of-00003"):
        shutil.copyfile(os.path.join(golden, "formats", name + ".gguf"), os.path.join(corpus("gguf"), name))
    shutil.copyfile(os.path.join(golden, "formats", "mixed.safetensors"),
                    os.path.join(corpus("safetensors"), "mixed.safetensors"))
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                         "b": {"dtype": "BF16", "shape": [2, 1], "data_offsets": [4, 8]}}).encode()
    with open(os.path.join(corpus("safetensors"), "two.safetensors"), "wb") as file:
        file.write(np.uint64(len(header)).tobytes() + header + bytes(8))
    for name in ("tiny_llama_hf", "tiny_llama_hf_tied"):
        shutil.copyfile(os.path.join(golden, name, "config.json"),
                        os.path.join(corpus("config"), name + ".json"))


if __name__ == "__main__":
    main()
