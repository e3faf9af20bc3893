"""Writes ONNX files from their parts by the wire format of protobuf: the library ``onnx`` is not needed to test with.

Field numbers are those of onnx.proto (ModelProto, GraphProto, NodeProto, AttributeProto, TensorProto, ValueInfoProto).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

FLOAT, INT64 = 1, 7


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def node(operator: str, inputs: list[str], outputs: list[str], **attributes: int | list[int]) -> bytes:
    parts = [field(1, name) for name in inputs] + [field(2, name) for name in outputs] + [field(4, operator)]
    for name, value in attributes.items():
        values = b"".join(field(8, own) for own in value) if isinstance(value, list) else field(3, value)
        parts.append(field(5, field(1, name) + values + field(20, 7 if isinstance(value, list) else 2)))
    return b"".join(parts)


def constant(name: str, value: Any) -> bytes:
    array = np.asarray(value)
    kind = FLOAT if array.dtype == np.float32 else INT64
    return (
        b"".join(field(1, size) for size in array.shape) + field(2, kind) + field(8, name) + field(9, array.tobytes())
    )


def value_info(name: str, kind: int, shape: list[int | str]) -> bytes:
    sizes = b"".join(field(1, field(1, own) if isinstance(own, int) else field(2, own)) for own in shape)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, sizes)))


def write_model(
    path: Path, nodes: list[bytes], constants: list[bytes], inputs: list[bytes], outputs: list[bytes]
) -> Path:
    graph = (
        b"".join(field(1, own) for own in nodes) + field(2, "features") + b"".join(field(5, own) for own in constants)
    )
    graph += b"".join(field(11, own) for own in inputs) + b"".join(field(12, own) for own in outputs)
    path.write_bytes(field(1, 8) + field(8, field(1, "") + field(2, 13)) + field(7, graph))
    return path
