"""Published networks as judges: formulas, what they are asked, and what the evaluation shows of them."""

import pytest
import tiny_networks
import torch
from test_benchmark_worlds import judge
from tiny import write_weights
from torch.nn import functional as F

from rl3d.__main__ import main
from rl3d.cameras import Orbit
from rl3d.evaluate import benchmark, independent
from rl3d.evaluate.benchmark import Examiner
from rl3d.evaluate.independent import Impression, Panel, Sentences, compare, conse
from rl3d.evaluate.worlds import Question, ToyWorld
from rl3d.geometry.points import from_points
from rl3d.toybox.language import TOYS
from rl3d.toybox.things import Item, Spec

SMALL = Orbit(4, 20.0, size=32).cameras()


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    return tiny_networks.write_networks(tmp_path_factory.mktemp("networks"))


@pytest.fixture
def panel(networks):
    return Panel(networks)


def test_conse_mixes_the_likeliest_classes():
    found = conse(torch.tensor([0.1, 0.6, 0.3]), torch.eye(3), torch.cat([torch.eye(3), 2 * torch.ones(1, 3)]), top=2)
    root = 0.45**0.5
    expected = torch.tensor([0.0, 0.6 / root, 0.3 / root, 0.9 / root / 3**0.5])
    torch.testing.assert_close(found, expected)


def test_a_network_answers_each_view_over_gray(panel):
    views = ToyWorld().truths(Question("a mug", Spec((Item("mug"),))), SMALL, 0, 1)[0].views
    features, classes = panel.features(views), panel.classes(views)
    assert features.shape == (1, 4, 16)
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(1, 4))
    torch.testing.assert_close(classes.sum(-1), torch.ones(1, 4))
    pixels = F.interpolate(views.over(0.8)[0].movedim(-1, 1), (28, 28), mode="bicubic", antialias=True, align_corners=False)
    with torch.no_grad():
        alone = tiny_networks.eyes()((pixels - 0.5) / 0.25)
    torch.testing.assert_close(features[0], F.normalize(alone, dim=-1), atol=1e-3, rtol=1e-3)


def test_sentences_are_means_over_their_words_and_not_over_what_fills_up(networks):
    model = Sentences(networks / "sentences")
    together = model(["a mug", "a photo of a key"])
    torch.testing.assert_close(together[:1], model(["a mug"]))
    torch.testing.assert_close(together.norm(dim=1), torch.ones(2))


def test_the_place_of_a_noun_is_among_what_is_certainly_false(panel, monkeypatch):
    views = ToyWorld().truths(Question("a mug", Spec((Item("mug"),))), SMALL, 0, 1)[0].views
    asked = []

    def fits(probabilities, classes, texts):
        asked.append(len(texts))
        return torch.linspace(1, 0, len(texts))

    monkeypatch.setattr(independent, "conse", fits)
    assert panel.place(views, "mug", TOYS) == 0
    kinds = [kind for kind in TOYS.answers()["kind"] if kind is not None]
    false = [kind for kind in kinds if TOYS.contradicts(Spec((Item("mug"),)), Spec((Item(kind),)))]
    assert asked == [1 + len(false)]
    monkeypatch.setattr(independent, "conse", lambda probabilities, classes, texts: torch.ones(len(texts)))
    assert panel.place(views, "mug", TOYS) == len(false)  # ties count against it


def test_objects_are_compared_with_true_ones_in_pairs():
    a, b = torch.eye(4)[:1].expand(2, 4), torch.eye(4)[1:2].expand(2, 4)
    found = compare([Impression(a, (b, b))] * 4 + [Impression(a, ())])
    assert found["objects beside true ones"] == {"assets": 4, "true": 4}
    assert found["DINOv2 kernel distance"] == {"assets": 14.0, "true": 0.0}  # 8 + 8 - 1 - 1
    assert found["its standard error"] == {"assets": 0.0, "true": 0.0}
    assert found["DINOv2 Frechet distance"]["assets"] == pytest.approx(2)
    assert "   14.0000    0.0000" in independent.table(found)


def test_too_few_are_not_compared():
    views = torch.eye(16)[:2]
    assert compare([Impression(views, (views,))] * 2) == {"objects beside true ones": {"assets": 2, "true": 0}}
    assert "DINOv2 Frechet distance" not in compare([Impression(views, (views,))] * 3)  # 6 views of 16 dimensions


def test_the_benchmark_shows_what_they_say(panel, tmp_path):
    world = ToyWorld()
    examiner = Examiner({"judge": judge(tmp_path, TOYS.vocabulary())}, SMALL, world, pool=10, panel=panel)
    question = Question("a ball", Spec((Item("ball"),)))
    points = world.truths(question, SMALL, 0, 1)[0].points
    splats = from_points(points, torch.full_like(points, 0.5), scale=0.05)
    found = examiner.examine(question, splats)
    assert -1 <= found["dino_identity"] <= 1
    assert {found[f"{whose}conse_r5"] for whose in ("", "true_")} <= {0.0, 1.0}
    assert found["conse_r1"] <= found["conse_r5"]
    assert {"ConSE top-1", "DINOv2 identity of views"} <= benchmark.summarize([found]).keys()
    assert "ConSE top-5" in benchmark.table([found | {"seconds": 1.0}])
    assert panel.compare([("toys", "a ball")])["objects beside true ones"] == {"assets": 1, "true": 1}
    two = Question("a ball next to a cube", Spec((Item("ball"), Item("cube")), "next to"))
    assert "conse_r1" not in examiner.examine(two, splats)  # it has no single noun


def test_the_command_says_how_to_fetch_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RL3D_WEIGHTS", str(write_weights(tmp_path / "weights")))
    with pytest.raises(SystemExit):
        main(["evaluate", "--independent", "--networks", str(tmp_path / "none")])
    error = capsys.readouterr().err
    assert "there are no published networks" in error
    assert "python -m rl3d.evaluate.published" in error


def test_files_that_do_not_fit_are_refused(networks, tmp_path):
    tiny_networks.write(tmp_path / "dinov2", tiny_networks.eyes(), {"architecture": "test_vit", "options": {}, "size": 28})
    with pytest.raises(ValueError, match="does not fit test_vit"):
        independent.Network(tmp_path / "dinov2")
