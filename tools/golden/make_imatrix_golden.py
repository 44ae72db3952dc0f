# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/imatrix: importance matrices as llama-imatrix writes them, for importance_test.

  sums.gguf   "NAME.in_sum2" [columns, 1] and "NAME.counts" [1, 1], both F32, and imatrix.* keys
  calls.dat   the older format: means times the number of calls

Both hold mean squares of (1 + i) / 4 for column i of blk.0.attn_q.weight (8 columns, 3 chunks of 512 tokens).
Run: python tools/golden/make_imatrix_golden.py   (needs gguf, numpy)
"""

import os
import struct

import gguf
import numpy as np

FOLDER = os.path.join(os.path.dirname(__file__), "..", "..", "tests", "golden", "imatrix")
NAME, CHUNK, CHUNKS = "blk.0.attn_q.weight", 512, 3
MEANS = (1 + np.arange(8, dtype=np.float32)) / 4


def main():
    os.makedirs(FOLDER, exist_ok=True)
    writer = gguf.GGUFWriter(os.path.join(FOLDER, "sums.gguf"), "")
    writer.kv_data[0].clear()  # llama-imatrix names no architecture
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["wiki.txt"])
    writer.add_uint32("imatrix.chunk_count", CHUNKS)
    writer.add_uint32("imatrix.chunk_size", CHUNK)
    writer.add_tensor(NAME + ".in_sum2", (MEANS * CHUNK * CHUNKS).reshape(1, -1))
    writer.add_tensor(NAME + ".counts", np.array([[CHUNK * CHUNKS]], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with open(os.path.join(FOLDER, "calls.dat"), "wb") as file:
        file.write(struct.pack("<ii", 1, len(NAME)) + NAME.encode())
        file.write(struct.pack("<ii", CHUNKS, len(MEANS)) + (MEANS * CHUNKS).tobytes())
        file.write(struct.pack("<ii", CHUNKS, len("wiki.txt")) + b"wiki.txt")


if __name__ == "__main__":
    main()
