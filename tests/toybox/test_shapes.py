"""The toybox's shapes are closed, outward, and have the volumes that geometry gives."""

from __future__ import annotations

import numpy as np
import pytest

from rl3d.toybox import shapes

SOLIDS = {
    "lathe": shapes.lathe([(0, 0), (1, 0), (0.5, 1), (0.8, 2), (0, 2)]),
    "cup": shapes.lathe([(0, 0), (1, 0), (1, 1), (0.8, 1), (0.8, 0.2), (0, 0.2)]),
    "cylinder": shapes.cylinder(0.5, 2),
    "frustum": shapes.cylinder(1, 1, top=0.4),
    "cone": shapes.cone(1, 1),
    "sphere": shapes.sphere(1),
    "odd sphere": shapes.sphere(1, 9),
    "ellipsoid": shapes.ellipsoid(1, 2, 3),
    "dome": shapes.dome(1, 0.5),
    "capsule": shapes.capsule(0.5, 2),
    "box": shapes.box(1, 2, 3),
    "tapered box": shapes.box(1, 2, 3, taper=(0.5, 0.8)),
    "rounded box": shapes.rounded_box(1, 2, 3, 0.2),
    "thin rounded box": shapes.rounded_box(1, 2, 0.1, 0.5),
    "torus": shapes.torus(1, 0.3),
    "tube": shapes.tube([(0, 0, 0), (0, 0, 1), (1, 0, 2), (2, 1, 2)], [0.3, 0.2, 0.2, 0.1]),
    "flat tube": shapes.tube(shapes.arc(1, 0, 180), 0.2, flat=0.5),
    "extruded": shapes.extrude([(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)], 0.5),
    "rod": shapes.rod((0, 0, 0), (1, 2, 3), 0.2, 0.1),
}


@pytest.mark.parametrize("name", SOLIDS)
def test_every_shape_is_closed_outward_and_clean(name):
    mesh = SOLIDS[name]
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume > 0
    assert len(np.unique(np.round(mesh.vertices, 9), axis=0)) == len(mesh.vertices)
    assert len(np.unique(mesh.faces)) == len(mesh.vertices)
    assert mesh.area_faces.min() > 0


@pytest.mark.parametrize(
    ("mesh", "volume", "tolerance"),
    [
        (shapes.box(1, 2, 3), 6, 1e-12),
        (shapes.box(2, 2, 3, taper=(0, 0)), 4, 1e-12),
        (shapes.cylinder(0.5, 2, 200), np.pi / 2, 1e-3),
        (shapes.cone(0.5, 3, 200), np.pi / 4, 1e-3),
        (shapes.sphere(1, 120), 4 / 3 * np.pi, 2e-3),
        (shapes.ellipsoid(1, 2, 0.5, 120), 4 / 3 * np.pi, 2e-3),
        (shapes.dome(1, 2, 120), 4 / 3 * np.pi, 2e-3),
        (shapes.capsule(1, 2, 120), 2 * np.pi + 4 / 3 * np.pi, 2e-3),
        (shapes.torus(2, 0.5, 200, 100), np.pi**2, 2e-3),
        (shapes.tube([(0, 0, 0), (0, 0, 3)], 0.5, 200), 0.75 * np.pi, 1e-3),
        (shapes.lathe([(0, 0), (2, 0), (2, 1), (1, 1), (1, 0.5), (0, 0.5)], 200), 3.5 * np.pi, 1e-3),
        (shapes.extrude([(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)], 0.5), 1.5, 1e-12),
    ],
)
def test_volumes_are_those_of_closed_forms(mesh, volume, tolerance):
    assert mesh.volume == pytest.approx(volume, rel=tolerance)


def test_the_regular_polygon_is_exact_at_any_number_of_segments():
    n = 7
    assert shapes.cylinder(1, 1, n).volume == pytest.approx(n / 2 * np.sin(2 * np.pi / n))


def test_rounding_takes_volume_from_a_box_but_not_extent():
    mesh = shapes.rounded_box(1, 2, 3, 0.2, 12)
    np.testing.assert_allclose(mesh.bounds, [(-0.5, -1, 0), (0.5, 1, 3)], atol=1e-9)
    inner, r = np.array([0.6, 1.6, 2.6]), 0.2
    pairs = inner[0] * inner[1] + inner[1] * inner[2] + inner[2] * inner[0]
    exact = inner.prod() + 2 * r * pairs + np.pi * r**2 * inner.sum() + 4 / 3 * np.pi * r**3
    assert mesh.volume == pytest.approx(exact, rel=3e-3)


def test_a_loft_makes_poles_of_rings_without_size():
    ring = np.column_stack([shapes.circle(1, 6), np.zeros(6)])
    spindle = shapes.loft(np.stack([ring * 0 - (0, 0, 1), ring, ring * 0 + (0, 0, 1)]))
    assert len(spindle.vertices) == 6 + 2
    assert len(spindle.faces) == 12
    assert spindle.is_watertight
    capped = shapes.loft(np.stack([ring, ring + np.array([0, 0, 1])]))
    assert len(capped.vertices) == 12 + 2
    assert len(capped.faces) == 12 + 12
    assert capped.is_watertight


def test_a_closed_loft_has_the_topology_of_a_torus():
    assert shapes.torus(1, 0.2).euler_number == 0
    assert shapes.sphere().euler_number == 2


def test_extrude_keeps_a_notch_open():
    angle = np.arange(10) * np.pi / 5
    star = np.stack([np.cos(angle), np.sin(angle)], 1) * np.where(np.arange(10) % 2, 0.4, 1.0)[:, None]
    mesh = shapes.extrude(star, 1.0)
    assert mesh.is_watertight
    x, y = star.T
    assert mesh.volume == pytest.approx((x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def test_extrude_refuses_a_clockwise_outline():
    with pytest.raises(ValueError, match="clockwise"):
        shapes.extrude([(0, 0), (0, 1), (1, 1), (1, 0)], 1.0)


@pytest.mark.parametrize("factor", [(-1, 1, 1), (-2, -1, 1), (-1, -1, -1), (1, 2, 3)])
def test_scale_keeps_faces_outward_when_it_mirrors(factor):
    mesh = shapes.scale(shapes.cone(1, 1), factor)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(shapes.cone(1, 1).volume * abs(np.prod(factor)))


@pytest.mark.parametrize(
    ("axis", "start", "stop"), [("x", (0, 1, 0), (0, 0, 1)), ("y", (0, 0, 1), (1, 0, 0)), ("z", (1, 0, 0), (0, 1, 0))]
)
def test_turn_follows_the_right_hand(axis, start, stop):
    tip = shapes.turn(shapes.move(shapes.box(0.1, 0.1, 0.1), *start), axis, 90).bounds.mean(0)
    centre = shapes.move(shapes.box(0.1, 0.1, 0.1), *start).bounds.mean(0)
    assert tip @ np.array(stop) == pytest.approx(centre @ np.array(start))


def test_along_carries_the_axis_and_keeps_the_volume():
    start, stop = np.array([1.0, -2.0, 0.5]), np.array([-1.0, 1.0, 2.0])
    length = float(np.linalg.norm(stop - start))
    mesh = shapes.along(shapes.cylinder(0.1, length), tuple(start), tuple(stop))
    np.testing.assert_allclose(mesh.vertices.mean(0), (start + stop) / 2, atol=1e-9)
    np.testing.assert_allclose(mesh.vertices[-1], stop, atol=1e-9)
    assert mesh.volume == pytest.approx(shapes.cylinder(0.1, length).volume)


def test_a_tube_holds_its_radius_round_a_bend():
    path = shapes.arc(1, 0, 90, 40)
    rings = shapes.tube(path, 0.1, 8).vertices[: 40 * 8].reshape(40, 8, 3)
    np.testing.assert_allclose(np.linalg.norm(rings - path[:, None], axis=-1), 0.1, atol=1e-9)


def test_join_adds_volumes_without_merging():
    both = shapes.join(shapes.sphere(1), shapes.move(shapes.box(1, 1, 1), 0.2))
    assert both.volume == pytest.approx(shapes.sphere(1).volume + 1)
    assert both.is_watertight


def test_shapes_leave_their_inputs_alone():
    mesh = shapes.box(1, 1, 1)
    before = np.array(mesh.vertices)
    for change in (
        lambda m: shapes.move(m, 1),
        lambda m: shapes.scale(m, -2.0),
        lambda m: shapes.turn(m, "x", 30),
        lambda m: shapes.bend(m, lambda p: p * 2),
    ):
        change(mesh)
    np.testing.assert_array_equal(mesh.vertices, before)
