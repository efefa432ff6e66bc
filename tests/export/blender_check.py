"""Run by Blender's Python (``pip install bpy``), not by pytest: says as JSON what Blender makes of files of meshes."""

import json
import sys

import bpy
import numpy as np


def imported(path):
    bpy.ops.wm.read_factory_settings(use_empty=True)
    kind = path.rsplit(".", 1)[1]
    {
        "glb": bpy.ops.import_scene.gltf,
        "obj": bpy.ops.wm.obj_import,
        "stl": bpy.ops.wm.stl_import,
        "ply": bpy.ops.wm.ply_import,
        "usdz": bpy.ops.wm.usd_import,
    }[kind](filepath=path)
    bpy.context.view_layer.update()
    (thing,) = (thing for thing in bpy.data.objects if thing.type == "MESH")
    mesh = thing.data
    places = np.array([thing.matrix_world @ vertex.co for vertex in mesh.vertices])
    corners = np.array([loop.vertex_index for loop in mesh.loops])
    normals = np.array([thing.matrix_world.to_3x3() @ corner.vector for corner in mesh.corner_normals])
    said = {
        "faces": len(mesh.polygons),
        "name": thing.name,
        "corners": places[corners].tolist(),
        "normals": (normals / np.linalg.norm(normals, axis=1, keepdims=True)).tolist(),
        "images": {},
    }
    # Blender's own values are linear, but those said to be sRGB.
    if mesh.color_attributes:
        layer = mesh.color_attributes[0]
        rgb = np.array([item.color_srgb[:3] for item in layer.data])
        said["srgb"] = (rgb if layer.domain == "CORNER" else rgb[corners]).tolist()
    if mesh.uv_layers:
        said["uv"] = [list(item.uv) for item in mesh.uv_layers[0].data]
    for slot in thing.material_slots:
        for node in slot.material.node_tree.nodes:
            if node.type == "TEX_IMAGE" and node.image is not None:
                pixels = np.array(node.image.pixels[:]).reshape(node.image.size[1], node.image.size[0], -1)
                uses = sorted({link.to_node.type for link in node.outputs["Color"].links})
                mean = pixels[..., :3].mean((0, 1)).tolist()
                said["images"][node.image.colorspace_settings.name] = {"size": list(node.image.size), "mean": mean, "to": uses}
            if node.type == "BSDF_PRINCIPLED":
                said["roughness"] = node.inputs["Roughness"].default_value
                said["metallic"] = node.inputs["Metallic"].default_value
                said["linked"] = sorted(socket.name for socket in node.inputs if socket.is_linked)
    return said


print("\n" + json.dumps({path: imported(path) for path in sys.argv[1:]}))
