"""Teaching a prior: what a lesson promises, on tiny random models."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors
import tiny
import torch
from PIL import Image

from rl3d.__main__ import main
from rl3d.algorithms.adjoint import AdjointMatching
from rl3d.algorithms.backprop import Draft, Refl
from rl3d.algorithms.ddpo import Ddpo
from rl3d.algorithms.dpo import DiffusionDpo
from rl3d.algorithms.grpo import Grpo
from rl3d.algorithms.nabla import Nabla
from rl3d.algorithms.nft import Nft
from rl3d.cameras import Orbit, RandomOrbit
from rl3d.finetune import advance, begin, best_step, enough, finetune, pieces, restore, state
from rl3d.lesson import Lesson, Listed, Probe, Toys, lesson_files, load_lesson
from rl3d.optimize import Diverged
from rl3d.priors.embedded import Embedded
from rl3d.priors.lora import Lora, adapter_state
from rl3d.priors.rollout import Ddim, Sampling
from rl3d.priors.sampling import Streams, draw_noise
from rl3d.protocols import RewardInfo
from rl3d.recipe import beside
from rl3d.rewards.base import FromCallable
from rl3d.rewards.clip import Clip
from rl3d.rewards.consistency import Normals
from rl3d.rewards.guards import Area
from rl3d.toybox import grammar
from rl3d.types import Prompt

ODE, SDE = Sampling(2, Ddim(0.0)), Sampling(3, Ddim(1.0))
WORDS = ("a red mug", "a blue mug", "a red cube", "a blue cube", "a mug on a cube", "a cube on a mug", "red mug", "blue mug")


def redness(shown, prompts):
    return shown.views.rgb[..., 0].mean((1, 2, 3)) - shown.views.rgb[..., 2].mean((1, 2, 3))


RED = FromCallable(redness, RewardInfo("red", "pixels", (-1.0, 1.0), "", "", ""))
PLAIN = Lesson(
    algorithm=Draft(ODE),
    rewards={"red": RED},
    prompts=Listed(WORDS),
    adapt=Lora(rank=2),
    rig=RandomOrbit(2, size=16),
    batch=4,
    unit=2,
    steps=4,
    rate=0.01,
    probe=Probe(every=2, prompts=2, steps=2, guards={"area": Area()}, watched=()),
)
ALGORITHMS = {
    "draft": Draft(ODE),
    "ddpo": Ddpo(SDE, group=2, remember_least=2),
    "grpo": Grpo(SDE, group=3, kl=0.1),
    "nft": Nft(ODE, group=3),
    "dpo": DiffusionDpo(SDE, group=3, refresh=2),
}
each = pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return tiny.write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(autouse=True)
def here(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("RL3D_WEIGHTS", str(weights))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(t):
    for _ in finetune(t):
        pass
    return adapter_state(t.actor)


@each
def test_a_lesson_goes_on_after_a_checkpoint_bit_for_bit(algorithm):
    lesson = replace(PLAIN, algorithm=algorithm, updates=2)
    whole = begin(lesson)
    first = {key: x.clone() for key, x in adapter_state(whole.actor).items()}
    final = run(whole)
    part = begin(lesson)
    advance(part)
    advance(part)
    tensors, plain = state(part)
    later = restore(lesson, tensors, json.loads(json.dumps(plain)))
    assert later.step == 2
    for key, x in run(later).items():
        assert torch.equal(x, final[key])
    assert any(not torch.equal(x, first[key]) for key, x in final.items() if key.startswith("policy"))
    assert later.probes == whole.probes


def test_the_reward_that_is_climbed_rises_and_what_is_kept_rises_with_it():
    t = begin(replace(PLAIN, steps=12, rate=0.03, ema=0.5))
    run(t)
    assert t.probes[-1]["reward"] > t.probes[0]["reward"] + 0.01
    assert [p["step"] for p in t.probes] == [0, 2, 4, 6, 8, 10, 12]


def test_samples_do_not_depend_on_how_a_batch_is_cut():
    finals = [run(begin(replace(PLAIN, unit=unit, steps=2, clip=1e9))) for unit in (1, 2, 4)]
    for key, x in finals[0].items():
        for other in finals[1:]:
            torch.testing.assert_close(x, other[key], atol=1e-6, rtol=1e-5)


def test_ratios_are_one_before_the_first_update():
    t = begin(replace(PLAIN, algorithm=Grpo(SDE, group=3)))
    assert advance(t).told["log_ratio_max"] == 0.0


def test_streams_give_each_prompt_its_own_noise_whatever_the_batch():
    cpu = torch.device("cpu")
    whole = draw_noise((6, 2), Streams((0, 1), [4, 5, 6]), cpu)
    part = draw_noise((2, 2), Streams((0, 1), [5]), cpu)
    assert torch.equal(whole[2:4], part)
    assert not torch.equal(whole, draw_noise((6, 2), Streams((0, 2), [4, 5, 6]), cpu))
    stream = Streams((0, 1), [4])
    assert not torch.equal(draw_noise((1, 2), stream, cpu), draw_noise((1, 2), stream, cpu))


def test_pieces_add_up_to_the_whole_gradient():
    t = begin(replace(PLAIN, algorithm=Grpo(SDE, group=3, kl=0.1)))
    cameras, rng = Orbit(2, size=16).cameras(), torch.Generator().manual_seed(0)
    batch = t.lesson.algorithm.collect(t.actor, t.panel, [Prompt("a mug")], cameras, rng, t.state)
    weights = list(t.actor.weights("policy").values())

    def gradient(loss):
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)])

    whole = gradient(t.lesson.algorithm.loss(t.actor, t.panel, batch, rng, t.state)[0])
    parts = list(pieces(batch))
    assert len(parts) == 2
    summed = sum(share * gradient(t.lesson.algorithm.loss(t.actor, t.panel, p, rng, t.state)[0]) for p, share in parts)
    torch.testing.assert_close(summed, whole)


def test_prompts_of_toys_are_of_the_train_split_and_differ():
    found = [p.text for step in range(20) for p in Toys().draw(0, step, 8)]
    assert len(set(found)) > 100
    assert Toys().draw(0, 3, 8) == Toys().draw(0, 3, 8) != Toys().draw(1, 3, 8)
    known = {grammar.canonical(grammar.sample(__import__("numpy").random.default_rng(i), "validation")) for i in range(200)}
    assert not known & set(found)


def test_listed_prompts_are_each_seen_once_in_a_pass():
    source = Listed(WORDS)
    seen = [p.text for step in (0, 1) for p in source.draw(0, step, 4)]
    assert sorted(seen) == sorted(WORDS)


def test_what_is_held_out_cannot_teach():
    from rl3d.evaluate.worlds import prompt_set, read_questions

    held = read_questions(prompt_set("validation"))[0].prompt
    with pytest.raises(ValueError, match="held out"):
        Listed((held, "a red mug")).draw(0, 0, 1)


def test_it_stops_when_a_guard_falls_while_the_reward_rises_and_keeps_what_was_before():
    lesson = replace(PLAIN, probe=replace(PLAIN.probe, guards={"area": Area()}, watched=("area",), window=2, patience=None))
    good = [{"step": float(i), "reward": 0.1 * i, "guard/area": 0.5 + 0.01 * i} for i in range(5)]
    assert enough(lesson, good) == ""
    bad = good + [{"step": 5.0 + i, "reward": 0.5 + 0.1 * i, "guard/area": 0.4 - 0.1 * i} for i in range(4)]
    assert "guards fall (area" in enough(lesson, bad)
    assert best_step(lesson, good) == 4
    assert best_step(lesson, bad) <= 5


def test_it_stops_when_the_reward_no_longer_rises():
    lesson = replace(PLAIN, probe=replace(PLAIN.probe, patience=2))
    flat = [{"step": float(i), "reward": r} for i, r in enumerate((0.1, 0.3, 0.2, 0.2))]
    assert enough(lesson, flat[:3]) == ""
    assert "since step 1" in enough(lesson, flat)
    assert best_step(lesson, flat) == 1


def test_values_that_are_not_finite_change_nothing_and_too_many_stop():
    def steep(shown, prompts):
        # Finite, so that it is judged valid; its gradient is not.
        return (shown.views.rgb.mean((1, 2, 3, 4)) * 0).sqrt()

    t = begin(replace(PLAIN, patience=1, rewards={"red": replace(RED, function=steep)}))
    before = {key: x.clone() for key, x in adapter_state(t.actor).items()}
    assert advance(t).skipped
    for key, x in adapter_state(t.actor).items():
        assert torch.equal(x, before[key])
    with pytest.raises(Diverged, match="not finite"):
        advance(t)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch": 3}, "cannot be cut"),
        ({"steps": 0}, "at least 1"),
        ({"weights": {"blue": 1.0}}, "no reward blue"),
        ({"rewards": {}}, "at least one reward"),
    ],
)
def test_lessons_that_cannot_be_are_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        replace(PLAIN, **changes)


def test_rewards_that_cannot_teach_are_refused():
    with pytest.raises(ValueError, match="only ever reported"):
        begin(replace(PLAIN, rewards={"judge": Clip("judge")}))
    with pytest.raises(ValueError, match="wrap it in Lifted"):
        begin(replace(PLAIN, rewards={"normals": Normals()}))
    grey = FromCallable(redness, replace(RED.info, name="grey", differentiable="no"))
    for algorithm in (Draft(ODE), Refl(ODE), Nabla(SDE), AdjointMatching(SDE)):
        with pytest.raises(ValueError, match="grey has no gradient in the pixels: take DDPO"):
            begin(replace(PLAIN, algorithm=algorithm, rewards={"grey": grey}))
    with pytest.raises(ValueError, match="steps that draw"):
        begin(replace(PLAIN, algorithm=Grpo(ODE)))


SMALL = ["--steps", "2", "--batch", "2", "--unit", "1", "--rig.size", "16", "--rig.views", "2"]
SMALL += ["--algorithm.sampling.steps", "2"]
SMALL += ["--probe.every", "1", "--probe.prompts", "2", "--probe.steps", "2", "--given", *WORDS]


def test_a_lesson_leaves_a_folder_whose_lora_a_run_and_diffusers_can_use(capsys):
    main(["finetune", "draft", *SMALL, "--rate", "0.1", "--out", "lesson"])
    folder = Path("lesson")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == 2
    assert summary["after"].keys() >= {"reward", "reward/encoder", "guard/judge"}
    assert [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()] == [1, 2]
    assert Image.open(next((folder / "previews").glob("*.png"))).size == (32, 32)
    assert "recipe = Lesson(" in (folder / "recipe.py").read_text()
    assert not (folder / "probed").exists()
    capsys.readouterr()
    main(["finetune", "draft", *SMALL, "--rate", "0.1", "--out", "lesson"])
    assert "done before" in capsys.readouterr().err


def taught_actor():
    actor = Lora(rank=2, alpha=3.0).build(Embedded(dtype="float32").build(), ("policy",), torch.Generator().manual_seed(0))
    for i, p in enumerate(actor.weights("policy").values()):
        torch.nn.init.normal_(p, std=0.1, generator=torch.Generator().manual_seed(i))
    return actor


def predicted(prior):
    cameras, prompts = Orbit(2, size=16).cameras(), [Prompt("a red mug")]
    noisy = torch.randn(1, 2, 4, 16, 16, generator=torch.Generator().manual_seed(5))
    from rl3d.math import level_at

    with torch.no_grad():
        return prior.predict(noisy, level_at(0.5), prior.embed(prompts, cameras))


def test_a_saved_lora_predicts_alike_merged_here_and_loaded_by_diffusers():
    from rl3d.priors.lora_files import save_lora

    actor = taught_actor()
    path = save_lora(actor, "policy", "lora")
    want, base = predicted(actor.using("policy")), predicted(Embedded(dtype="float32").build())
    assert (want - base).abs().max() > 1e-3
    merged = predicted(Embedded(dtype="float32", lora="lora").build())
    torch.testing.assert_close(merged, want, atol=1e-5, rtol=1e-5)
    other = Embedded(dtype="float32").build()
    other.net.load_lora_adapter(str(path.parent), weight_name=path.name, prefix="transformer")
    torch.testing.assert_close(predicted(other), want, atol=1e-5, rtol=1e-5)
    with safetensors.safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["lora_adapter_metadata"])
    assert config["transformer.r"] == 2
    assert config["transformer.lora_alpha"] == 3.0


def test_loras_that_are_missing_damaged_or_of_another_prior_are_named(capsys):
    import safetensors.torch

    for lora, says in (("nowhere", "no LoRA"), ("bad.safetensors", "damaged"), ("other.safetensors", "another prior")):
        Path("bad.safetensors").write_bytes(b"nonsense")
        pair = {"lora_A": torch.ones(2, 5), "lora_B": torch.ones(5, 2)}
        safetensors.torch.save_file({f"transformer.enter.{k}.weight": x for k, x in pair.items()}, "other.safetensors")
        with pytest.raises(SystemExit):
            main(["generate", "a red mug", "--recipe", "draft", "--prior.lora", lora])
        error = capsys.readouterr().err
        assert says in error
        assert "Traceback" not in error


def test_a_lesson_that_was_left_is_resumed_to_the_same_lora(monkeypatch):
    from rl3d import finetune as module

    main(["finetune", "draft", *SMALL, "--out", "whole"])
    real, calls = module.advance, []

    def stop(t):
        calls.append(t.step)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(t)

    monkeypatch.setattr(module, "advance", stop)
    with pytest.raises(SystemExit):
        main(["finetune", "draft", *SMALL, "--out", "part"])
    monkeypatch.setattr(module, "advance", real)
    main(["resume", "part"])
    name = "lora/pytorch_lora_weights.safetensors"
    assert Path("part", name).read_bytes() == Path("whole", name).read_bytes()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["finetune"], "which lesson"),
        (["finetune", "nonsense"], "no lesson 'nonsense'"),
        (["finetune", "draft", "--batch", "3"], "cannot be cut"),
        (["finetune", "draft", "--given", "nowhere.txt"], "no prompt file"),
        (["finetune", "draft", "--given", "a mug"], "different prompts"),
    ],
)
def test_mistakes_with_lessons_are_answered_in_words(capsys, words, says):
    with pytest.raises(SystemExit) as stop:
        main(words)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert says in error
    assert "Traceback" not in error
    assert not Path("runs").exists()


@pytest.mark.parametrize("path", lesson_files(), ids=lambda path: path.stem)
def test_lessons_name_their_papers(path):
    lesson = load_lesson(path)
    assert lesson.about
    assert (lesson.paper is not None) == (path.stem != "lifted")
    if lesson.paper is not None:
        assert lesson.paper.departures
        assert lesson.paper.title in "\n".join(beside(lesson, lesson.paper))


@pytest.mark.parametrize("path", lesson_files(), ids=lambda path: path.stem)
def test_each_lesson_that_ships_learns(path):
    lesson = load_lesson(path)
    algorithm = lesson.algorithm
    sampling = replace(algorithm.sampling, steps=3)
    algorithm = replace(algorithm, sampling=sampling, **({"group": 2} if hasattr(algorithm, "group") else {}))
    probe = replace(lesson.probe, every=9, prompts=1, steps=2)
    changes = {"batch": 1, "unit": 1, "updates": 1, "steps": 2, "prompts": Listed(WORDS), "probe": probe}
    t = begin(replace(lesson, algorithm=algorithm, rig=RandomOrbit(2, size=16), **changes))
    taught = advance(t)
    assert not taught.skipped
    assert taught.told or taught.idle


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(weights):
    words = [sys.executable, "-m", "rl3d", "finetune", "ddpo", *SMALL, "--algorithm.sampling.steps", "3"]
    env = {**os.environ, "RL3D_WEIGHTS": str(weights), "OMP_NUM_THREADS": "1"}
    subprocess.run([*words, "--out", "one"], check=True, env=env)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    joint = {**env, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    started = [
        subprocess.Popen([*words, "--out", "two"], env={**joint, "RANK": str(i), "LOCAL_RANK": str(i)}) for i in range(2)
    ]
    assert [process.wait(timeout=200) for process in started] == [0, 0]
    with (
        safetensors.safe_open("one/checkpoint.safetensors", "pt") as one,
        safetensors.safe_open("two/checkpoint.safetensors", "pt") as two,
    ):
        assert set(one.keys()) == set(two.keys())
        moved = 0.0
        for key in one.keys():  # noqa: SIM118
            if key.startswith("actor."):
                torch.testing.assert_close(one.get_tensor(key), two.get_tensor(key), atol=1e-6, rtol=0)
                moved = max(moved, float(one.get_tensor(key).abs().max()) if "lora_B" in key else 0.0)
        assert moved > 1e-5, "nothing was learned, so nothing was compared"
