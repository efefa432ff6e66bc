"""Meshes are written as they were, and programs of others read them so."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from node import node, node_package
from toys import block, textured, toy
from trimesh.visual import ColorVisuals

from rl3d.assets import look_at_mesh
from rl3d.cameras import Orbit
from rl3d.export.meshes.corners import corners, weld, weld_corners
from rl3d.export.meshes.files import KINDS, mesh_bytes, write_mesh
from rl3d.export.meshes.reading import read_mesh
from rl3d.export.meshes.srgb import linear_from_srgb, srgb_from_linear
from rl3d.render.textured import texture_at

READ = ("glb", "obj", "stl", "ply")


def bare():
    """A cone without colours."""
    return trimesh.creation.cone(0.4, 0.8)


MESHES = {"colours": toy, "texture": lambda: textured(toy()), "bare": bare}


def colours(mesh):
    """Colours of the corners of all faces, 0 to 255."""
    if mesh.visual.kind == "texture":
        texels = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB"))
        return texture_at(texels, np.asarray(mesh.visual.uv)[mesh.faces].reshape(-1, 2)).reshape(-1, 3, 3)
    return np.asarray(mesh.visual.vertex_colors)[:, :3].astype(np.float64)[mesh.faces]


@pytest.mark.parametrize("what", MESHES)
@pytest.mark.parametrize("kind", READ)
def test_a_mesh_comes_back_as_it_was(tmp_path, kind, what):
    mesh = MESHES[what]()
    write_mesh(tmp_path / f"a.{kind}", mesh)
    found = read_mesh(tmp_path / f"a.{kind}")
    np.testing.assert_allclose(found.triangles, mesh.triangles, atol=1e-6)  # face by face, corner by corner
    if kind == "stl" or what == "bare":
        assert found.visual.kind is None
    elif what == "colours":
        np.testing.assert_array_equal(colours(found), colours(mesh))
    elif kind == "ply":
        assert np.abs(colours(found) - colours(mesh)).mean() < 6, "seams and corners of faces are blended"
    else:
        np.testing.assert_allclose(np.asarray(found.visual.uv)[found.faces], np.asarray(mesh.visual.uv)[mesh.faces], atol=1e-6)
        before, after = (x.visual.material for x in (mesh, found))
        np.testing.assert_array_equal(np.asarray(after.baseColorTexture), np.asarray(before.baseColorTexture))
        if kind == "glb":
            np.testing.assert_array_equal(np.asarray(after.normalTexture), np.asarray(before.normalTexture))


@pytest.mark.parametrize("kind", READ)
def test_the_front_faces_the_same_way_in_all_files(tmp_path, kind):
    mesh = textured(toy())
    write_mesh(tmp_path / f"a.{kind}", mesh)
    cameras = Orbit(4, 10.0, size=48).cameras()
    seen, found = look_at_mesh(mesh)(cameras), look_at_mesh(read_mesh(tmp_path / f"a.{kind}"))(cameras)
    assert (seen.alpha - found.alpha).abs().max() < 0.35, "a sample of nine at most falls on the other side of an edge"
    assert (seen.alpha - found.alpha).abs().mean() < 1e-3
    if kind != "stl":
        assert (seen.rgb - found.rgb).abs().mean() < 0.01
        assert (seen.rgb - seen.rgb[:, [2, 3, 0, 1]]).abs().mean() > 0.02, "the views of this toy tell front from back"


@pytest.mark.parametrize(("kind", "factor"), [("glb", 1), ("obj", 1), ("ply", 1), ("stl", 1000)])
def test_trimesh_finds_sizes_and_axes(tmp_path, kind, factor):
    write_mesh(tmp_path / f"a.{kind}", block(), metres=0.05)
    box = trimesh.load_mesh(tmp_path / f"a.{kind}").bounds
    size = 0.05 * factor * np.array([1.2, 0.6, 0.8])
    axes = [1, 2, 0] if kind in ("glb", "obj") else [0, 1, 2]  # to the left, up, to the front
    np.testing.assert_allclose(box, np.stack([-size / 2, size / 2])[:, axes], rtol=1e-5)


@pytest.mark.parametrize("kind", READ)
def test_faces_look_outward_and_the_mesh_is_closed(tmp_path, kind):
    write_mesh(tmp_path / f"a.{kind}", block())
    found = trimesh.load_mesh(tmp_path / f"a.{kind}")
    found.merge_vertices(merge_norm=True, merge_tex=True)
    assert found.is_watertight
    assert found.volume == pytest.approx(1.2 * 0.6 * 0.8 * (1e9 if kind == "stl" else 1), rel=1e-5)


def test_colours_of_glb_are_linear_light():
    dark = block()
    dark.visual = ColorVisuals(dark, vertex_colors=np.tile([[188, 1, 2, 255]], (len(dark.vertices), 1)).astype(np.uint8))
    data = mesh_bytes(dark, "glb")
    assert isinstance(data, bytes)
    document = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
    at = document["accessors"][document["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"]]
    start = 28 + int.from_bytes(data[12:16], "little") + document["bufferViews"][at["bufferView"]]["byteOffset"]
    stored = np.frombuffer(data, "<u2", 3, start) / 65535
    # 188 is half of the light, as the sRGB standard has it.
    np.testing.assert_allclose(stored, [0.5029, 1 / 255 / 12.92, 2 / 255 / 12.92], atol=1e-4)


def test_srgb_goes_there_and_back():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(srgb_from_linear(linear_from_srgb(levels)), levels)


def test_edges_are_sharp_and_curves_smooth():
    box, ball = corners(block()), corners(trimesh.creation.icosphere(3))
    flat = np.abs(box.normals).max(-1)
    np.testing.assert_allclose(flat, 1, atol=1e-6)
    np.testing.assert_allclose((ball.normals * ball.points[ball.faces]).sum(-1), 1, atol=1e-3)
    assert len(weld_corners(ball.faces, ball.normals, None)[0]) == len(ball.points)
    assert len(weld_corners(box.faces, box.normals, None)[0]) == 54, "a box of 3 x 3 points on each side"


def test_seams_of_a_texture_are_no_seams_of_the_surface():
    made, plain = corners(textured(toy())), corners(toy())
    assert made.watertight
    assert len(made.points) == len(np.unique(np.float32(toy().vertices), axis=0))
    np.testing.assert_allclose(made.normals, plain.normals, atol=1e-4)


def test_welding_keeps_the_order():
    first, kind = weld(np.array([[3, 1], [2, 2], [3, 1], [0, 0], [2, 2]]))
    assert first.tolist() == [0, 1, 3]
    assert kind.tolist() == [0, 1, 0, 2, 1]


def test_an_objs_parts_are_there_before_it(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr("rl3d.export.meshes.files.write_whole", lambda path, data: order.append(path.name))
    paths = write_mesh(tmp_path / "duck.obj", textured(toy()), name="a duck\n/../ 🦆")
    assert order == [path.name for path in paths] == ["duck.png", "duck_normal.png", "duck.mtl", "duck.obj"]
    files = mesh_bytes(textured(toy()), "obj", name="a duck\n/../ 🦆", stem="duck")
    assert isinstance(files, dict)
    assert b"\no a_duck\n" in files["duck.obj"]
    assert b"mtllib duck.mtl\n" in files["duck.obj"]
    assert b"map_Kd duck.png\n" in files["duck.mtl"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_mesh_is_the_same_bytes(kind):
    assert mesh_bytes(textured(block()), kind) == mesh_bytes(textured(block()), kind)


@pytest.mark.parametrize(
    ("mesh", "options", "says"),
    [
        (trimesh.Trimesh(), {}, "no faces"),
        (trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, np.nan, 0]], [[0, 1, 2]], process=False), {}, "not finite"),
        (block(), {"metres": 0.0}, "more than 0 metres"),
        (block(), {"metres": float("nan")}, "more than 0 metres"),
        (block(), {"metres": 1e30}, "beyond"),
        (block(), {"kind": "fbx"}, "glb, obj, stl, ply, usdz, got fbx"),
        (block(), {"kind": "obj", "stem": "a duck"}, "try a_duck"),
    ],
)
def test_what_cannot_be_written_is_said(mesh, options, says):
    with pytest.raises(ValueError, match=says):
        mesh_bytes(mesh, **{"kind": "glb", **options})


def test_without_usd_core_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pxr", None)
    with pytest.raises(ValueError, match=r"pip install 'rl3d\[usd\]'"):
        mesh_bytes(block(), "usdz")


# ---- programs of others

VALIDATE = """
const { validateBytes } = require(process.argv[1]), fs = require("fs");
Promise.all(process.argv.slice(2).map(async (path) => validateBytes(new Uint8Array(fs.readFileSync(path)))))
  .then((all) => console.log(JSON.stringify(all.map((report) => report.issues))));
"""


def test_the_khronos_validator_finds_nothing_wrong(tmp_path):
    package = node_package("gltf-validator")
    meshes = {what: make() for what, make in MESHES.items()} | {"small": textured(block(), normal_map=False)}
    paths = [write_mesh(tmp_path / f"{what}.glb", mesh, name="a red duck")[0] for what, mesh in meshes.items()]
    for what, issues in zip(meshes, json.loads(node("-e", VALIDATE, package, *paths)), strict=True):
        # Tangents are left to the viewer, which makes them as MikkTSpace does (glTF 2.0, 3.7.2.1).
        known = {"MESH_PRIMITIVE_GENERATED_TANGENT_SPACE"} if what == "texture" else set()
        assert {message["code"] for message in issues["messages"]} == known, what


def usd_errors(path):
    from pxr import Usd, UsdUtils, UsdValidation

    if hasattr(UsdUtils, "ComplianceChecker"):  # until OpenUSD 25
        checker = UsdUtils.ComplianceChecker(arkit=True)
        checker.CheckCompliance(str(path))
        return checker.GetErrors() + checker.GetFailedChecks()
    known = UsdValidation.ValidationRegistry()
    validators = [known.GetOrLoadValidatorByName(about.name) for about in known.GetAllValidatorMetadata()]
    assert len(validators) > 10
    return [error.GetMessage() for error in UsdValidation.ValidationContext(validators).Validate(Usd.Stage.Open(str(path)))]


@pytest.mark.parametrize("what", MESHES)
def test_usd_finds_nothing_wrong(tmp_path, what):
    pytest.importorskip("pxr", reason="usd-core is not installed: pip install 'rl3d[usd]'")
    from pxr import Usd, UsdGeom, UsdShade

    mesh = MESHES[what]()
    write_mesh(tmp_path / "a.usdz", mesh, metres=0.1, name="1 red duck")
    assert usd_errors(tmp_path / "a.usdz") == []
    stage = Usd.Stage.Open(str(tmp_path / "a.usdz"))
    assert (UsdGeom.GetStageUpAxis(stage), UsdGeom.GetStageMetersPerUnit(stage)) == ("Y", 1.0)
    root = stage.GetDefaultPrim()
    made = UsdGeom.Mesh(root.GetChild("Mesh"))
    points = np.array(made.GetPointsAttr().Get())[np.array(made.GetFaceVertexIndicesAttr().Get())]
    np.testing.assert_allclose(points, 0.1 * mesh.triangles.reshape(-1, 3)[:, [1, 2, 0]], atol=1e-6)
    surface = UsdShade.MaterialBindingAPI(made).ComputeBoundMaterial()[0].ComputeSurfaceSource()[0]
    assert surface.GetIdAttr().Get() == "UsdPreviewSurface"
    if what == "texture":
        texture = UsdShade.Shader(surface.GetInput("diffuseColor").GetConnectedSource()[0])
        assert texture.GetInput("sourceColorSpace").Get() == "sRGB"
        assert ".usdz[colour.png]" in texture.GetInput("file").Get().resolvedPath
    elif what == "colours":
        linear = np.array(UsdGeom.PrimvarsAPI(made).GetPrimvar("displayColor").Get())
        indices = np.array(made.GetFaceVertexIndicesAttr().Get())
        np.testing.assert_array_equal(srgb_from_linear(linear.astype(np.float64))[indices], colours(mesh).reshape(-1, 3))


@pytest.mark.parametrize("kind", ["obj", "stl", "ply"])
def test_meshlab_reads_the_same(tmp_path, kind):
    pymeshlab = pytest.importorskip("pymeshlab", reason="pymeshlab is not installed")
    mesh = toy()
    write_mesh(tmp_path / f"a.{kind}", mesh)
    meshes = pymeshlab.MeshSet()
    meshes.load_new_mesh(str(tmp_path / f"a.{kind}"))
    found = meshes.current_mesh()
    assert found.face_number() == len(mesh.faces)
    size = np.ptp(mesh.vertices, axis=0)[[1, 2, 0] if kind == "obj" else [0, 1, 2]]
    np.testing.assert_allclose(np.ptp(found.vertex_matrix(), axis=0), size * (1000 if kind == "stl" else 1), rtol=1e-5)
    if kind != "stl":
        assert found.vertex_number() == len(mesh.vertices)
        rgb = np.round(255 * found.vertex_color_matrix()[:, :3])[found.face_matrix()]
        assert np.abs(rgb - colours(mesh)).max() <= 1


def test_blender_reads_the_same(tmp_path):
    python = os.environ.get("RL3D_BLENDER_PYTHON")
    if not python:
        pytest.skip("RL3D_BLENDER_PYTHON names no Python that has Blender's bpy")
    meshes = {"plain": toy(), "texture": textured(toy())}
    paths = {(what, kind): tmp_path / f"{what}.{kind}" for what in meshes for kind in KINDS}
    for (what, _), path in paths.items():
        write_mesh(path, meshes[what], name="a red duck")
    script = Path(__file__).with_name("blender_check.py")
    done = subprocess.run([python, script, *paths.values()], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.strip().splitlines()[-1])
    for (what, kind), path in paths.items():
        mesh, found = meshes[what], said[str(path)]
        x, y, z = mesh.triangles.reshape(-1, 3).T
        # Blender has z up as we do, and takes the front of what has y up along -y.
        expected = 1000 * np.stack([x, y, z], 1) if kind == "stl" else np.stack([x, y, z] if kind == "ply" else [y, -x, z], 1)
        np.testing.assert_allclose(found["corners"], expected, rtol=1e-4, atol=1e-5)
        if kind in ("glb", "obj", "usdz"):
            x, y, z = corners(mesh).normals.reshape(-1, 3).T
            assert np.abs(np.array(found["normals"]) - np.stack([y, -x, z], 1)).max() < 0.01
        if what == "plain" and kind != "stl":
            np.testing.assert_allclose(255 * np.array(found["srgb"]), colours(mesh).reshape(-1, 3), atol=0.6)
        if what == "texture" and kind in ("glb", "obj", "usdz"):
            np.testing.assert_allclose(found["uv"], np.asarray(mesh.visual.uv)[mesh.faces].reshape(-1, 2), atol=1e-5)
            picture = found["images"]["sRGB"]
            assert picture["size"] == [256, 256]
            assert "BSDF_PRINCIPLED" in picture["to"]
            mean = np.asarray(mesh.visual.material.baseColorTexture).mean((0, 1)) / 255
            np.testing.assert_allclose(picture["mean"], mean, atol=1e-3)
        if what == "texture" and kind in ("glb", "usdz"):
            assert found["images"]["Non-Color"]["to"] == ["NORMAL_MAP"]
            assert (found["roughness"], found["metallic"]) == (1, 0)


def test_texels_are_blended_between_their_centres():
    texels = np.array([[[0, 0, 0], [100, 0, 0]], [[0, 200, 0], [100, 200, 0]]], np.uint8)  # rows from the top
    at = texture_at(texels, np.array([[0.25, 0.75], [0.75, 0.75], [0.25, 0.25], [0.5, 0.5], [1.25, -0.25]]))
    np.testing.assert_allclose(at, [[0, 0, 0], [100, 0, 0], [0, 200, 0], [50, 100, 0], [0, 0, 0]], atol=1e-4)
