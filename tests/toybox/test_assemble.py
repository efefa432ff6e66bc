import numpy as np
import pytest

from rl3d.toybox import kinds
from rl3d.toybox.assemble import EYES, Toy, build
from rl3d.toybox.grammar import sample
from rl3d.toybox.paints import PAINTS
from rl3d.toybox.things import Item, Spec

BALL, CUBE = Item("ball", "red"), Item("cube", "blue")


def points(toy: Toy, item: int | None = None) -> np.ndarray:
    return np.concatenate([part.mesh.vertices for part in toy.parts if item in (None, part.item)])


def radius(toy: Toy) -> float:
    return float(np.linalg.norm(points(toy), axis=1).max())


def toys(spec: Spec, n: int = 8) -> list[Toy]:
    return [build(spec, np.random.default_rng(seed)) for seed in range(n)]


def test_every_kind_builds_and_fits():
    for name in kinds.KINDS:
        (toy,) = toys(Spec((Item(name),)), 1)
        assert 0.82 < radius(toy) < 0.88, name
        np.testing.assert_allclose(toy.bounds.mean(0), 0, atol=1e-9)


@pytest.mark.parametrize(("form", "low", "high"), [("small", 0.56, 0.6), ("big", 0.96, 1.0), (None, 0.82, 0.88)])
def test_size_words_set_the_bounding_sphere(form, low, high):
    assert all(low <= radius(toy) <= high + 1e-9 for toy in toys(Spec((Item("mug", form=form),))))


def test_form_words_change_proportions():
    def slenderness(form):
        extents = [np.ptp(toy.bounds, axis=0) for toy in toys(Spec((Item("cylinder", form=form),)))]
        return np.mean([e[2] / e[1] for e in extents])

    assert slenderness("short") < 0.75 * slenderness(None) < slenderness(None) < 0.75 * slenderness("tall")
    assert slenderness("wide") < 0.75 * slenderness(None) < slenderness(None) < 0.75 * slenderness("narrow")


def test_same_seed_same_toy():
    spec = Spec((Item("duck", "red"), Item("table", "wooden")), "on")
    one, other = (build(spec, np.random.default_rng(7)) for _ in range(2))
    assert [part.paint for part in one.parts] == [part.paint for part in other.parts]
    np.testing.assert_array_equal(points(one), points(other))
    assert not np.array_equal(points(one), points(build(spec, np.random.default_rng(8))))


def test_paints_are_as_asked():
    for toy in toys(Spec((Item("house", "blue", accent=("roof", "red")),))):
        paint = {part.label: part.paint for part in toy.parts}
        assert paint["roof"] == "red"
        assert "blue" in paint.values()


def test_natural_parts_are_told_apart_from_the_main_paint():
    rng = np.random.default_rng(0)
    for kind in kinds.KINDS.values():
        for main in ("red", "white", "wooden", "black"):
            slots = {piece.label: piece.slot for piece in kind.build(rng, kinds.solids.Form())}
            for part in build(Spec((Item(kind.name, main),)), rng).parts:
                if slots.get(part.label, "main") not in ("main", *EYES) and part.paint != main:
                    assert np.linalg.norm(np.subtract(PAINTS[part.paint].colour, PAINTS[main].colour)) > 0.2


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("name", ["ball", "car", "tree"])
def test_counted_things_do_not_touch(name, count):
    for toy in toys(Spec((Item(name, "yellow", count=count),)), 4):
        each = len(toy.parts) // count if name == "ball" else None
        assert len({part.paint for part in toy.parts if part.paint == "yellow"}) == 1
        if each is not None:
            clouds = [np.concatenate([p.mesh.vertices for p in toy.parts[i * each : (i + 1) * each]]) for i in range(count)]
            boxes = [(cloud.min(0), cloud.max(0)) for cloud in clouds]
            for i, (low, high) in enumerate(boxes):
                for other_low, other_high in boxes[:i]:
                    assert (low[:2] > other_high[:2]).any() or (other_low[:2] > high[:2]).any()
            np.testing.assert_allclose([low[2] for low, _ in boxes], boxes[0][0][2], atol=1e-9)


def test_on_rests_upon_the_top_without_sinking():
    for toy in toys(Spec((BALL, CUBE), "on")):
        ball, cube = points(toy, 0), points(toy, 1)
        gap = ball[:, 2].min() - cube[:, 2].max()
        assert abs(gap) < 0.01
        low, high = cube.min(0), cube.max(0)
        assert (ball.mean(0)[:2] > low[:2]).all()
        assert (ball.mean(0)[:2] < high[:2]).all()
        assert 0.4 < np.ptp(ball[:, 1]) / np.ptp(cube[:, 1]) < 1.0


def test_on_works_for_everything_that_has_a_top():
    for kind in kinds.KINDS.values():
        if kind.flat_top:
            for toy in toys(Spec((CUBE, Item(kind.name)), "on"), 3):
                cube, under = points(toy, 0), points(toy, 1)
                assert cube[:, 2].min() > under[:, 2].min() + 0.25 * np.ptp(under[:, 2]), kind.name
                assert cube[:, 2].min() < under[:, 2].max() + 0.01, kind.name


def test_next_to_stands_side_by_side_on_the_ground():
    sides = set()
    for toy in toys(Spec((Item("robot"), Item("cone", "green")), "next to"), 12):
        one, other = points(toy, 0), points(toy, 1)
        assert abs(one[:, 2].min() - other[:, 2].min()) < 1e-9
        left, right = (one, other) if one[:, 1].mean() > other[:, 1].mean() else (other, one)
        assert 0 < left[:, 1].min() - right[:, 1].max() < 0.2
        sides.add(left is one)
    assert sides == {True, False}


@pytest.mark.parametrize("name", ["ball", "duck", "book", "ring"])
def test_inside_is_within_the_walls_and_seen_above_the_rim(name):
    for container in (kind.name for kind in kinds.KINDS.values() if kind.container):
        for toy in toys(Spec((Item(name, "red"), Item(container, "blue")), "inside"), 3):
            thing = points(toy, 0)
            walls = np.concatenate([part.mesh.vertices for part in toy.parts if part.item == 1 and part.label != "handle"])
            assert (thing[:, :2].min(0) > walls[:, :2].min(0)).all()
            assert (thing[:, :2].max(0) < walls[:, :2].max(0)).all()
            assert walls[:, 2].min() < thing[:, 2].min() < walls[:, 2].max()
            assert thing[:, 2].max() > walls[:, 2].max() - 0.35 * np.ptp(thing[:, 2])


def test_random_specs_fit_the_unit_sphere():
    rng = np.random.default_rng(5)
    for _ in range(60):
        toy = build(sample(rng, None), rng)
        assert radius(toy) <= 1.0 + 1e-9
        assert all(part.paint in PAINTS for part in toy.parts)


def test_mesh_has_the_paints_as_vertex_colours():
    (toy,) = toys(Spec((BALL, CUBE), "next to"), 1)
    mesh = toy.mesh()
    assert len(mesh.faces) == sum(len(part.mesh.faces) for part in toy.parts)
    colours = {tuple(colour) for colour in np.asarray(mesh.visual.vertex_colors)[:, :3]}
    expected = {tuple(np.round(np.multiply(PAINTS[name].colour, 255)).astype(int)) for name in ("red", "blue")}
    assert all(any(np.abs(np.subtract(c, e)).max() <= 1 for e in expected) for c in colours)
