"""Reads the weights in an ONNX file, and gives a transformer's their names back, without a library for it.

A file is a protocol buffer (https://protobuf.dev/programming-guides/encoding), whose messages and field numbers are those of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. Of these only tensors and who reads which are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

Field = tuple[int, int | memoryview]
"""A field's number, and its value: an integer, or bytes."""

FLOAT = 1
"""``TensorProto.DataType`` of 32-bit floats."""


@dataclass(frozen=True)
class Node:
    """An operation, by the names of what goes in and out."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """The nodes of a file in their order, and its float32 tensors by name."""

    nodes: tuple[Node, ...]
    tensors: dict[str, Tensor]


def read_graph(data: bytes) -> Graph:
    """Read the graph of an ONNX file. Bytes that are none, or tensors kept in other files, are a ``ValueError``."""
    try:
        parts = [value for number, value in _fields(memoryview(data)) if number == 7]
        if len(parts) != 1:
            raise ValueError("it has no graph")
        fields = list(_fields(_bytes(parts[0])))
        nodes = [_node(_bytes(value)) for number, value in fields if number == 1]
        named = [_tensor(_bytes(value)) for number, value in fields if number == 5]
    except (ValueError, IndexError) as error:
        raise ValueError(f"this is no ONNX file with float weights in it ({error}): download it again") from None
    tensors = {name: tensor for name, tensor in named if tensor is not None}
    for node in nodes:  # what is equal is stored once, and passed on under another name
        if node.kind == "Identity" and node.inputs[0] in tensors:
            tensors[node.outputs[0]] = tensors[node.inputs[0]]
    return Graph(tuple(nodes), tensors)


def vision_transformer(graph: Graph) -> dict[str, Tensor]:
    """The weights of a vision transformer as timm names them, from PyTorch's export of one.

    The export keeps the names of biases and norms, but transposes the matrices and names them by number: each is named after
    the bias that is added to its product. Positions come apart into those of the class token and of the patches.

    Raises:
        ValueError: if it is of another form.
    """
    weights = {name.removeprefix("model."): x for name, x in graph.tensors.items() if "::" not in name}
    products = {
        n.outputs[0]: graph.tensors[n.inputs[1]] for n in graph.nodes if n.kind == "MatMul" and n.inputs[1] in graph.tensors
    }
    positions: list[Tensor] = []
    for node in graph.nodes:
        known = [name for name in node.inputs if name in graph.tensors]
        if node.kind == "Add" and known and (made := [x for x in node.inputs if x in products]):
            weights[known[0].removeprefix("model.").replace(".bias", ".weight")] = products[made[0]].T.contiguous()
        elif node.kind == "Concat" and known:
            positions.append(graph.tensors[known[0]])
    grids = [x for name, x in graph.tensors.items() if "::" in name and x.ndim == 3 and x.shape[1] > 1]
    if len(positions) != 1 or len(grids) != 1 or "cls_token" not in weights:
        raise ValueError("this is no vision transformer as PyTorch exports it: its positions or its class token were not found")
    return weights | {"pos_embed": torch.cat([positions[0], grids[0]], 1)}


def _fields(data: memoryview) -> Iterator[Field]:
    """Read the fields of a message in their order."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"field of kind {kind}")
        if at + size > len(data):
            raise ValueError("it ends too early")
        yield number, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Read an integer of seven bits a byte, the lowest first; returns it and where the next field starts."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message was expected")
    return value


def _texts(fields: list[Field], number: int) -> tuple[str, ...]:
    return tuple(bytes(_bytes(value)).decode() for of, value in fields if of == number)


def _node(data: memoryview) -> Node:
    fields = list(_fields(data))
    return Node(_texts(fields, 4)[0], _texts(fields, 1), _texts(fields, 2))


def _tensor(data: memoryview) -> tuple[str, Tensor | None]:
    """A tensor and its name; None for one that is not of float32."""
    fields = list(_fields(data))
    (name,) = _texts(fields, 8)
    if (2, FLOAT) not in fields:
        return name, None
    shape: list[int] = []
    for number, value in fields:
        if number == 1 and isinstance(value, int):
            shape.append(value)
        elif number == 1:  # several in a row
            at, packed = 0, _bytes(value)
            while at < len(packed):
                size, at = _varint(packed, at)
                shape.append(size)
    # Floats in bytes, or packed; both little-endian and in a row.
    raw = [_bytes(value) for number, value in fields if number in (4, 9)]
    if len(raw) != 1:
        raise ValueError(f"{name} is not stored in the file")
    return name, torch.frombuffer(bytearray(raw[0]), dtype=torch.float32).reshape(shape)
