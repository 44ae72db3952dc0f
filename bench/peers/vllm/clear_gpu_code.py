# SPDX-License-Identifier: Apache-2.0
"""Fills the GPU code in a shared library that an sm_90 GPU never runs with zeros, which pack to nothing: clear_gpu_code.py FILE...

Machine code of other architectures goes, and PTX where machine code for sm_90 lies beside it."""

import struct
import sys

CONTAINER = struct.Struct("<IHHQ")  # magic, version, bytes of this header, bytes that follow
ENTRY = struct.Struct("<HHIQIIHHI")  # kind (1 PTX, 2 machine code), -, bytes of header, of payload, ..., architecture
MAGIC = struct.pack("<IH", 0xBA55ED50, 1)
ARCHITECTURE = 90


def entries(data, start, end):
    while start < end:
        kind, _, header, payload, *_, architecture = ENTRY.unpack_from(data, start)
        yield kind, architecture, start + header, payload
        start += header + payload


def main():
    for path in sys.argv[1:]:
        with open(path, "r+b") as file:
            data = bytearray(file.read())
            cleared, at = 0, data.find(MAGIC)
            while at >= 0:
                _, _, header, size = CONTAINER.unpack_from(data, at)
                found = list(entries(data, at + header, at + header + size))
                native = any(kind == 2 and architecture == ARCHITECTURE for kind, architecture, *_ in found)
                for kind, architecture, first, length in found:
                    if (kind == 2 and architecture != ARCHITECTURE) or (kind == 1 and native):
                        data[first:first + length] = bytes(length)
                        cleared += length
                at = data.find(MAGIC, at + header + size)
            file.seek(0)
            file.write(data)
        print(f"{path}: {cleared:,} bytes cleared")


main()
