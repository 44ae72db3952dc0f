# SPDX-License-Identifier: Apache-2.0
"""Makes a badly quantised variant of a Q4_1 GGUF file: bits of its weights are flipped, its scales are not."""

import struct

Q4_1, BLOCK_BYTES, BLOCK_WEIGHTS, SCALE_BYTES = 3, 20, 32, 4
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9


class _Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, layout):
        values = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += struct.calcsize("<" + layout)
        return values[0]

    def string(self):
        length = self.take("Q")
        self.at += length
        return bytes(self.data[self.at - length:self.at])

    def skip_value(self, kind):
        if kind == STRING:
            self.string()
        elif kind == ARRAY:
            inner, count = self.take("I"), self.take("Q")
            for _ in range(count):
                self.skip_value(inner)
        else:
            self.at += SIZES[kind]


def damaged_copy(source, target, mask, names=b"blk."):
    """XORs every quantised byte of the Q4_1 tensors whose name begins so with `mask`."""
    data = bytearray(open(source, "rb").read())
    reader = _Reader(data)
    assert reader.take("I") == 0x46554747
    reader.take("I")
    tensors, pairs = reader.take("Q"), reader.take("Q")
    for _ in range(pairs):
        reader.string()
        reader.skip_value(reader.take("I"))
    found = []
    for _ in range(tensors):
        name, elements = reader.string(), 1
        for _ in range(reader.take("I")):
            elements *= reader.take("Q")
        kind, offset = reader.take("I"), reader.take("Q")
        if kind == Q4_1 and name.startswith(names):
            found.append((offset, elements // BLOCK_WEIGHTS))
    start = (reader.at + 31) // 32 * 32
    flip = bytes([mask]) * (BLOCK_BYTES - SCALE_BYTES)
    pattern = int.from_bytes(bytes(SCALE_BYTES) + flip, "little")
    for offset, blocks in found:
        begin, size = start + offset, blocks * BLOCK_BYTES
        value = int.from_bytes(data[begin:begin + size], "little")
        mask_of_all = int.from_bytes(pattern.to_bytes(BLOCK_BYTES, "little") * blocks, "little")
        data[begin:begin + size] = (value ^ mask_of_all).to_bytes(size, "little")
    assert found
    with open(target, "wb") as out:
        out.write(data)
    return target
