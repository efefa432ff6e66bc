"""As much of nerfstudio 1.1.5 as rl3d.nerfstudio leans on, by its names, for tests where it is not installed."""

import importlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import nn


class Cameras:
    def __init__(self, camera_to_worlds, fx, fy, cx, cy, width, height):
        self.camera_to_worlds, self.fx, self.fy, self.cx, self.cy = camera_to_worlds, fx, fy, cx, cy
        self.width, self.height = torch.tensor(width), torch.tensor(height)

    def __getitem__(self, i):
        one = slice(i, i + 1)
        parts = (x[one] for x in (self.camera_to_worlds, self.fx, self.fy, self.cx, self.cy))
        return Cameras(*parts, int(self.width), int(self.height))

    def get_intrinsics_matrices(self):
        matrices = torch.eye(3).repeat(len(self.fx), 1, 1)
        matrices[:, 0, 0], matrices[:, 1, 1], matrices[:, 0, 2], matrices[:, 1, 2] = self.fx, self.fy, self.cx, self.cy
        return matrices


@dataclass
class MachineConfig:
    seed: int = 42
    device_type: str = "cuda"


@dataclass
class DataManagerConfig:
    _target: type = object
    data: Path | None = None


class DataManager(nn.Module):
    pass


class TrivialDataset:
    def __init__(self, cameras):
        self.cameras = cameras

    def __len__(self):
        return len(self.cameras.fx)


@dataclass
class SplatfactoModelConfig:
    _target: type = object
    prompt: str | None = None
    sh_degree: int = 3


class SplatfactoModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.populate_modules()

    device = torch.device("cpu")
    means = property(lambda self: self.gauss_params["means"])
    features_dc = property(lambda self: self.gauss_params["features_dc"])

    def load_state_dict(self, dict, **options):
        for name, x in self.gauss_params.items():
            rows = dict["gauss_params.means"].shape[0]
            self.gauss_params[name] = nn.Parameter(torch.zeros(rows, *x.shape[1:]))
        return super().load_state_dict(dict, **options)

    @staticmethod
    def get_empty_outputs(width, height, background):
        return {"rgb": background.repeat(height, width, 1)}

    def get_outputs_for_camera(self, camera):
        return self.get_outputs(camera)


@dataclass
class VanillaPipelineConfig:
    _target: type = object
    datamanager: Any = None
    model: Any = None


class VanillaPipeline(nn.Module):
    def __init__(self, config, device, test_mode="val", world_size=1):
        super().__init__()
        self.config = config
        self.datamanager = config.datamanager._target(config.datamanager, device=device, test_mode=test_mode)
        self._model = config.model._target(config.model)

    model = property(lambda self: self._model)
    device = torch.device("cpu")

    def load_pipeline(self, loaded_state, step):
        own = {name: x for name, x in loaded_state.items() if not name.startswith("_model.")}
        self.model.load_state_dict({k.removeprefix("_model."): v for k, v in loaded_state.items() if k not in own})
        nn.Module.load_state_dict(self, own, strict=False)


@dataclass
class TrainerConfig:
    _target: type = object
    method_name: str = ""
    experiment_name: str | None = None
    prompt: str | None = None
    max_num_iterations: int = 1_000_000
    steps_per_save: int = 1000
    steps_per_eval_batch: int = 500
    steps_per_eval_image: int = 500
    steps_per_eval_all_images: int = 25_000
    machine: Any = None
    pipeline: Any = None
    optimizers: dict = field(default_factory=dict)
    vis: str = "wandb"
    load_checkpoint: Path | None = None

    def set_experiment_name(self):
        self.experiment_name = self.experiment_name or "unnamed"


class Trainer:
    def __init__(self, config):
        self.config, self._start_step = config, 0
        self.pipeline = config.pipeline._target(config.pipeline, "cpu")
        self._load_checkpoint()

    def _load_checkpoint(self):
        if self.config.load_checkpoint is not None:
            state = torch.load(self.config.load_checkpoint)
            self._start_step = state["step"] + 1
            self.pipeline.load_pipeline(state["pipeline"], state["step"])

    def train(self, save=None, stop_after=None):
        """Train; save after so many steps of this call, or at the end. Returns the losses."""
        losses = []
        for step in range(self._start_step, self._start_step + self.config.max_num_iterations):
            losses.append(float(self.train_iteration(step)[0]))
            if len(losses) == stop_after:
                break
        torch.save({"step": step, "pipeline": self.pipeline.state_dict()}, save)
        return losses


@dataclass
class MethodSpecification:
    config: TrainerConfig
    description: str


NAMES = {
    "cameras.cameras": {"Cameras": Cameras},
    "configs.base_config": {"MachineConfig": MachineConfig},
    "data.datamanagers.base_datamanager": {"DataManager": DataManager, "DataManagerConfig": DataManagerConfig},
    "data.datamanagers.random_cameras_datamanager": {"TrivialDataset": TrivialDataset},
    "engine.trainer": {"Trainer": Trainer, "TrainerConfig": TrainerConfig},
    "models.splatfacto": {
        "SH2RGB": lambda sh: 0.5 + 0.28209479177387814 * sh,
        "SplatfactoModel": SplatfactoModel,
        "SplatfactoModelConfig": SplatfactoModelConfig,
    },
    "pipelines.base_pipeline": {"VanillaPipeline": VanillaPipeline, "VanillaPipelineConfig": VanillaPipelineConfig},
    "plugins.types": {"MethodSpecification": MethodSpecification},
    "utils.rich_utils": {"CONSOLE": SimpleNamespace(print=lambda *words: None)},
}


def ours(monkeypatch):
    """The module rl3d.nerfstudio on this stand-in; as if neither had been imported when the patch is undone."""
    for name, held in NAMES.items():
        module = ModuleType(f"nerfstudio.{name}")
        vars(module).update(held)
        parts = ["nerfstudio", *name.split(".")]
        for i in range(1, len(parts)):
            monkeypatch.setitem(sys.modules, ".".join(parts[:i]), ModuleType(".".join(parts[:i])))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "rl3d.nerfstudio", raising=False)
    module = importlib.import_module("rl3d.nerfstudio")
    monkeypatch.setitem(sys.modules, "rl3d.nerfstudio", module)
    return module
