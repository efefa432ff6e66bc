"""Meshes as USDZ, by way of usd-core, which is an extra.

After Pixar's "Usdz File Format Specification" (version 1.3) and "UsdPreviewSurface Specification" (version 2.6), and what
Apple's Quick Look asks of them: y up, one root prim that is the default, a texture inside the package.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

from rl3d.export.meshes.corners import Corners
from rl3d.export.meshes.gltf import GLTF_FROM_OURS
from rl3d.export.meshes.srgb import linear_from_srgb
from rl3d.export.pictures import png_bytes


def usdz_bytes(corners: Corners, name: str) -> bytes:
    """A mesh as a USDZ package: y up, front along +z, metres; a rough surface that takes light.

    Quick Look shows textures; colours of vertices are shown by usdview, Blender and others that follow the specification.

    Raises:
        ValueError: if usd-core is not installed.
    """
    try:
        from pxr import Gf, Sdf, Tf, Usd, UsdGeom, UsdShade, UsdUtils, Vt
    except ImportError:
        raise ValueError("USDZ files are written with usd-core, which is missing: pip install 'rl3d[usd]'") from None
    with tempfile.TemporaryDirectory() as scratch:
        folder, called = Path(scratch), Tf.MakeValidIdentifier(name)
        stage = Usd.Stage.CreateNew(str(folder / f"{called}.usdc"))
        UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
        UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        root = UsdGeom.Xform.Define(stage, f"/{called}")
        stage.SetDefaultPrim(root.GetPrim())
        Usd.ModelAPI(root).SetKind("component")

        points = corners.points[:, GLTF_FROM_OURS]
        mesh = UsdGeom.Mesh.Define(stage, f"/{called}/Mesh")
        mesh.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(points)))
        mesh.CreateFaceVertexCountsAttr(Vt.IntArray(len(corners.faces), 3))
        mesh.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(corners.faces.reshape(-1)))
        mesh.CreateExtentAttr([Gf.Vec3f(*points.min(0).tolist()), Gf.Vec3f(*points.max(0).tolist())])
        mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
        mesh.CreateOrientationAttr(UsdGeom.Tokens.rightHanded)
        mesh.CreateDoubleSidedAttr(not corners.watertight)
        normals = corners.normals.reshape(-1, 3)[:, GLTF_FROM_OURS]
        mesh.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(normals)))
        mesh.SetNormalsInterpolation(UsdGeom.Tokens.faceVarying)

        material = UsdShade.Material.Define(stage, f"/{called}/Material")
        surface = _shader(stage, material, "Surface", "UsdPreviewSurface")
        surface.CreateInput("metallic", Sdf.ValueTypeNames.Float).Set(0.0)
        surface.CreateInput("roughness", Sdf.ValueTypeNames.Float).Set(1.0)
        material.CreateSurfaceOutput().ConnectToSource(surface.ConnectableAPI(), "surface")
        diffuse = surface.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f)
        primvars = UsdGeom.PrimvarsAPI(mesh)
        if corners.texture is not None and corners.uv is not None:
            places = primvars.CreatePrimvar("st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.faceVarying)
            places.Set(Vt.Vec2fArray.FromNumpy(np.ascontiguousarray(corners.uv.reshape(-1, 2))))
            reader = _reader(stage, material, "st", "float2", Sdf.ValueTypeNames.Float2)
            wrap = "repeat" if corners.tiled else "clamp"
            maps = {"colour": (corners.texture, diffuse, "sRGB")}
            if corners.normal_map is not None:
                maps["normal"] = (corners.normal_map, surface.CreateInput("normal", Sdf.ValueTypeNames.Normal3f), "raw")
            for kind, (picture, wanted, space) in maps.items():
                (folder / f"{kind}.png").write_bytes(png_bytes(np.asarray(picture)))
                texture = _shader(stage, material, kind, "UsdUVTexture")
                texture.CreateInput("file", Sdf.ValueTypeNames.Asset).Set(f"./{kind}.png")
                texture.CreateInput("sourceColorSpace", Sdf.ValueTypeNames.Token).Set(space)
                texture.CreateInput("wrapS", Sdf.ValueTypeNames.Token).Set(wrap)
                texture.CreateInput("wrapT", Sdf.ValueTypeNames.Token).Set(wrap)
                texture.CreateInput("st", Sdf.ValueTypeNames.Float2).ConnectToSource(reader)
                if kind == "normal":  # from 0 to 1, as pictures have it, to -1 to 1
                    texture.CreateInput("scale", Sdf.ValueTypeNames.Float4).Set(Gf.Vec4f(2, 2, 2, 1))
                    texture.CreateInput("bias", Sdf.ValueTypeNames.Float4).Set(Gf.Vec4f(-1, -1, -1, 0))
                wanted.ConnectToSource(texture.CreateOutput("rgb", Sdf.ValueTypeNames.Float3))
        elif corners.colours is not None:
            linear = np.float32(linear_from_srgb(corners.colours))
            colours = primvars.CreatePrimvar("displayColor", Sdf.ValueTypeNames.Color3fArray, UsdGeom.Tokens.vertex)
            colours.Set(Vt.Vec3fArray.FromNumpy(linear))
            diffuse.ConnectToSource(_reader(stage, material, "displayColor", "float3", Sdf.ValueTypeNames.Float3))
        UsdShade.MaterialBindingAPI.Apply(mesh.GetPrim()).Bind(material)
        stage.Save()
        for part in folder.iterdir():  # the package keeps their times: the same mesh is the same bytes
            os.utime(part, (315532800, 315532800))  # 1980, where zip's calendar begins
        package = folder / "package.usdz"
        if not UsdUtils.CreateNewARKitUsdzPackage(str(folder / f"{called}.usdc"), str(package)):
            raise RuntimeError("usd-core could not make a USDZ package")
        return package.read_bytes()


def _shader(stage, material, name: str, kind: str):
    """A node of the material."""
    from pxr import UsdShade

    shader = UsdShade.Shader.Define(stage, material.GetPath().AppendChild(name))
    shader.CreateIdAttr(kind)
    return shader


def _reader(stage, material, primvar: str, kind: str, value):
    """What a primvar is at each place of the surface, as an output to connect to."""
    from pxr import Sdf

    reader = _shader(stage, material, f"{primvar}_reader", f"UsdPrimvarReader_{kind}")
    reader.CreateInput("varname", Sdf.ValueTypeNames.String).Set(primvar)
    return reader.CreateOutput("result", value)
