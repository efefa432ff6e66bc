"""How things can be shown: what they are comes first, a mesh that was made of them second."""

import torch
from rl3d.viewer import subjects
from rl3d.viewer.subjects import Subject, of_splats

from rl3d.geometry.points import ball
from rl3d.render.gaussians import look_at


def test_gaussians_are_drawn_by_the_browser_unless_they_are_too_many(monkeypatch):
    splats = ball(30, torch.Generator())
    assert of_splats(splats, look_at(splats)).ways == ("splats",)
    assert of_splats(splats, look_at(splats), b"glb").ways == ("splats", "mesh")
    monkeypatch.setattr(subjects, "IN_BROWSER", 20)
    assert of_splats(splats, look_at(splats)).ways == ("pictures",)
    assert of_splats(splats, look_at(splats), b"glb").ways == ("pictures", "mesh")


def test_a_mesh_is_shown_as_one_and_a_field_as_itself_before_its_mesh():
    look = look_at(ball(3, torch.Generator()))
    assert Subject(look, None, b"glb").ways == ("mesh",)
    assert Subject(look, None, None, streamed=True).ways == ("pictures",)
    assert Subject(look, None, b"glb", streamed=True).ways == ("pictures", "mesh")
