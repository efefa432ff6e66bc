"""glTF files in the making, sound or not."""

import base64
import io
import json
import struct

import numpy as np
from PIL import Image

TRIANGLE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
SQUARE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], np.float32)


class Gltf:
    """A glTF file in the making: a mesh of one primitive with these attributes."""

    def __init__(self, attributes, indices=None, **primitive):
        self.blob, self.views, self.accessors = b"", [], []
        self.attributes = {name: self.add(values) for name, values in attributes.items()}
        primitive |= {"attributes": self.attributes} | ({} if indices is None else {"indices": self.add(indices)})
        self.doc = {
            "asset": {"version": "2.0"},
            "meshes": [{"primitives": [primitive]}],
            "nodes": [{"mesh": 0}],
            "scenes": [{"nodes": [0]}],
            "scene": 0,
        }

    def view(self, data, **more):
        self.views.append({"buffer": 0, "byteOffset": len(self.blob), "byteLength": len(data), **more})
        self.blob += data + bytes(-len(data) % 4)
        return len(self.views) - 1

    def add(self, values, **more):
        values = np.asarray(values)
        kind = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}[values.dtype.str[1:]]
        shape = "SCALAR" if values.ndim == 1 else f"VEC{values.shape[1]}"
        at = {"bufferView": self.view(values.tobytes()), "componentType": kind, "count": len(values), "type": shape}
        self.accessors.append(at | more)
        return len(self.accessors) - 1

    def picture(self, pixels):
        buffer = io.BytesIO()
        Image.fromarray(np.asarray(pixels, np.uint8)).save(buffer, "png")
        return {"bufferView": self.view(buffer.getvalue()), "mimeType": "image/png"}

    def write(self, path, uri=None):
        whole = self.doc | {"bufferViews": self.views, "accessors": self.accessors}
        whole = {"buffers": [{"byteLength": len(self.blob)}]} | whole
        if path.suffix == ".gltf":
            data = "data:application/octet-stream;base64," + base64.b64encode(self.blob).decode()
            whole["buffers"][0]["uri"] = uri or data
            path.write_text(json.dumps(whole))
        else:
            path.write_bytes(glb(json.dumps(whole).encode(), self.blob))
        return path


def glb(text, binary=b""):
    chunks = b""
    for kind, data in ((0x4E4F534A, text + b" " * (-len(text) % 4)), (0x004E4942, binary)):
        chunks += struct.pack("<II", len(data), kind) + data
    return struct.pack("<III", 0x46546C67, 2, 12 + len(chunks)) + chunks


def ours(points):
    """Places of glTF in our axes."""
    return np.asarray(points)[..., [2, 0, 1]]


def corner_colours(mesh):
    return np.asarray(mesh.visual.vertex_colors)[:, :3][mesh.faces]
