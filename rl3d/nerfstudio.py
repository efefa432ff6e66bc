"""The loop of :mod:`rl3d.search` as a method of nerfstudio: ``ns-train rl3d-splats --prompt "a red mug"``.

nerfstudio finds :data:`splats` through the entry point ``nerfstudio.method_configs``; nothing else imports this module, and it
alone imports nerfstudio, whose way it is to inherit: written for 1.1.5. nerfstudio brings the command, the viewer, the writers
and the checkpoint's file; what a step is, and what is remembered, is ours alone.

Every ``ns-`` command imports this, so that what takes seconds to import is imported when it is used.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from nerfstudio.cameras.cameras import Cameras as TheirCameras
from nerfstudio.configs.base_config import MachineConfig
from nerfstudio.data.datamanagers.base_datamanager import DataManager, DataManagerConfig
from nerfstudio.data.datamanagers.random_cameras_datamanager import TrivialDataset
from nerfstudio.engine.trainer import Trainer, TrainerConfig
from nerfstudio.models.splatfacto import SH2RGB, SplatfactoModel, SplatfactoModelConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from nerfstudio.plugins.types import MethodSpecification
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from torch.nn import Parameter, ParameterDict
from tyro.conf import arg

from rl3d.cameras import Orbit, from_opengl, to_opengl
from rl3d.types import Prompt, Splats, Views

if TYPE_CHECKING:
    from rl3d.optimize import Optimization, Report
    from rl3d.recipe import Recipe
    from rl3d.record import Watcher
    from rl3d.search import Contest

NO_SPLATS = Splats(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, 1, 3))
GREY = torch.tensor([0.1490, 0.1647, 0.2157])
"""What is behind the object until the viewer says otherwise: nerfstudio's own."""


@contextmanager
def plainly() -> Iterator[None]:
    """End the command with a sentence, not a traceback, where its user made a mistake."""
    try:
        yield
    except ValueError as error:
        raise SystemExit(f"rl3d: {error}") from None


class Sides(TrivialDataset):
    """Cameras and pictures for the viewer: those that were drawn from the prior, or a ring of grey ones."""

    def __init__(self, views: Views | None = None):
        ours = Orbit(size=64).cameras() if views is None else views.cameras
        k = ours.intrinsics[0].cpu()
        sides = {"fx": k[:, 0, 0], "fy": k[:, 1, 1], "cx": k[:, 0, 2], "cy": k[:, 1, 2]}
        sides |= {"width": ours.width, "height": ours.height}
        super().__init__(TheirCameras(to_opengl(ours)[0, :, :3].cpu(), **sides))
        grey = torch.full((ours.views, ours.height, ours.width, 3), 0.5)
        self.pictures = grey if views is None else views.over(1.0)[0].detach().clamp(0, 1).cpu()

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.pictures[index], "image_idx": index}


@dataclass
class SidesManagerConfig(DataManagerConfig):
    """Nothing is read: what is learnt comes from the prior."""

    _target: type = field(default_factory=lambda: SidesManager)


class SidesManager(DataManager):
    """Stands where nerfstudio expects data."""

    def __init__(self, config: SidesManagerConfig, device: Any = "cpu", test_mode: str = "val", **_: Any):
        if config.data is not None:
            raise SystemExit("rl3d: rl3d-splats makes an object from a prompt, and reads no --data: give --prompt")
        self.config, self.device, self.test_mode = config, device, test_mode
        self.train_dataset = self.eval_dataset = Sides()
        self.pixels = 4 * 64 * 64
        super().__init__()

    def show(self, views: Views | None) -> None:
        """Let the viewer show these, where views were drawn."""
        self.train_dataset = self.eval_dataset = Sides(views)

    def setup_train(self) -> None: ...

    def setup_eval(self) -> None: ...

    def next_train(self, step: int) -> Any:
        raise NotImplementedError("rl3d-splats learns from a prior, not from pictures")

    next_eval = next_eval_image = next_train

    def get_train_rays_per_batch(self) -> int:
        return self.pixels

    get_eval_rays_per_batch = get_train_rays_per_batch

    def get_datapath(self) -> Path:
        """Where the viewer keeps camera paths."""
        return Path(".")

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        return {}


@dataclass
class SplatsModelConfig(SplatfactoModelConfig):
    """Only the prompt counts; splatfacto's numbers are here because ``ns-export`` looks for such a model."""

    _target: type = field(default_factory=lambda: SplatsModel)


class SplatsModel(SplatfactoModel):
    """Gaussians under splatfacto's names, as our rasterizer shows them. It does not learn here: :class:`SplatsPipeline` does.

    Colours of degree 0 are harmonics too, where splatfacto has them as logits.
    """

    def populate_modules(self) -> None:
        """Have no Gaussians yet, and nothing of splatfacto's own: neither a strategy, nor metrics that fetch weights."""
        self.gauss_params = ParameterDict()
        self.render_settings: dict[str, Any] = {}
        self.crop_box = None
        self.background_color = GREY
        self.step = 0
        self.show(NO_SPLATS)

    colors = property(lambda self: SH2RGB(self.features_dc))
    shs_0 = property(lambda self: self.features_dc)

    def show(self, splats: Splats) -> None:
        """Show these from now on; memory is shared, not copied."""
        self.config.sh_degree = splats.sh_degree
        named = {"means": splats.means, "scales": splats.log_scales, "quats": splats.quats}
        named |= {"features_dc": splats.sh[:, 0], "features_rest": splats.sh[:, 1:]}
        named["opacities"] = splats.opacity_logits[:, None]
        for name, x in named.items():
            self.gauss_params[name] = Parameter(x.detach(), requires_grad=False)

    def splats(self) -> Splats:
        """What is shown, detached, on the CPU."""
        p = {name: x.detach().cpu() for name, x in self.gauss_params.items()}
        sh = torch.cat([p["features_dc"][:, None], p["features_rest"]], 1)
        return Splats(p["means"], p["scales"], p["quats"], p["opacities"][:, 0], sh)

    def load_state_dict(self, dict: dict[str, Any], **options: Any) -> Any:  # the name is splatfacto's
        """Take what a checkpoint holds, however many Gaussians of whatever degree."""
        rest = dict["gauss_params.features_rest"]
        self.gauss_params["features_rest"] = Parameter(rest.new_zeros(0, *rest.shape[1:]), requires_grad=False)
        loaded = super().load_state_dict(dict, **options)
        self.show(self.splats())
        return loaded

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """Nothing for nerfstudio's optimisers: the run has its own."""
        return {}

    def get_training_callbacks(self, training_callback_attributes: Any) -> list:
        return []

    @torch.no_grad()
    def get_outputs(self, camera: TheirCameras) -> dict[str, Any]:
        """Show what one perspective camera sees, whatever its lens is said to be, as splatfacto does.

        It is drawn on the CPU: nerfstudio's gsplat is older than ours must be.

        Returns:
            ``rgb`` over the background, ``accumulation``, ``depth`` along the camera's axis, ``background``, and ``normals`` of
            the world, n in [-1, 1] as (n + 1) / 2; images ``[h w c]``.
        """
        from rl3d.render.gaussians import render_splats

        width, height = int(camera.width.item()), int(camera.height.item())
        background, splats = self.background_color.cpu(), self.splats()
        if self.crop_box is not None:
            splats = splats[self.crop_box.within(self.means).reshape(-1).cpu()]
        if not len(splats):
            return self.get_empty_outputs(width, height, background.to(self.device))
        cameras = from_opengl(camera.camera_to_worlds.cpu().float(), camera.get_intrinsics_matrices().cpu(), width, height)
        views = render_splats(splats, cameras, **self.render_settings)[0]
        assert views.depth is not None
        assert views.normals is not None
        alpha, depth = views.alpha[0, 0], views.depth[0, 0]
        found = {
            "rgb": views.over(background)[0, 0].clamp(0, 1),
            "depth": torch.where(alpha > 0, depth, depth.max()),
            "accumulation": alpha,
            "background": background.expand(height, width, 3),
            "normals": (views.normals[0, 0] + 1) / 2,
        }
        return {name: x.to(self.device) for name, x in found.items()}


@dataclass
class SplatsPipelineConfig(VanillaPipelineConfig):
    """Which recipe makes the object."""

    _target: type = field(default_factory=lambda: SplatsPipeline)
    datamanager: DataManagerConfig = field(default_factory=SidesManagerConfig)
    model: SplatfactoModelConfig = field(default_factory=SplatsModelConfig)
    recipe: Annotated[str, arg(prefix_name=False)] = "default"
    """A recipe's name (`rl3d recipes` lists them) or a .py file."""
    allow_unknown: Annotated[bool, arg(prefix_name=False)] = False
    """Go on although the prior does not know some words."""


class SplatsPipeline(VanillaPipeline):
    """A run of ours, behind what nerfstudio asks of a pipeline. Its state is in the checkpoint beside the model."""

    def __init__(self, config: SplatsPipelineConfig, device: Any, test_mode: Any = "val", world_size: int = 1, **more: Any):
        if world_size > 1:
            raise SystemExit("rl3d: a scene is made by one process: leave out --machine.num-devices and --machine.num-machines")
        super().__init__(config, device, test_mode, world_size, **more)
        self.run: Optimization | Contest | None = None
        self.saved: dict[str, Any] | None = None
        self._watcher: Watcher | None = None

    @property
    def prompt(self) -> Prompt:
        """What is asked for."""
        return Prompt((self.config.model.prompt or "").strip())

    def recipe(self) -> Recipe:
        """The recipe, for as many steps as were asked for when it was begun.

        Raises:
            ValueError: if it is not one of Gaussians, or not the one that a checkpoint was made with.
        """
        from rl3d.priors.embedded import Embedded
        from rl3d.recipe import describe, load_recipe, recipe_file
        from rl3d.representations.gaussians import Gaussians

        recipe = load_recipe(recipe_file(self.config.recipe))
        if not isinstance(recipe.scene, Gaussians):
            raise ValueError(
                f"rl3d-splats makes Gaussians, and {self.config.recipe!r} makes a field: use `rl3d generate` for it"
            )
        if self.config.allow_unknown and isinstance(recipe.prior, Embedded):
            recipe = replace(recipe, prior=replace(recipe.prior, allow_unknown=True))
        if self.saved is None:
            return recipe
        about = json.loads(self.saved["about"])
        recipe = replace(recipe, steps=about["recipe"]["steps"])
        if json.loads(json.dumps(describe(recipe))) != about["recipe"]:
            raise ValueError(
                f"the recipe {self.config.recipe!r} is not what it was for this checkpoint: take that version of it"
            )
        return recipe

    def begin(self, steps: int, seed: int) -> int:
        """Begin the run, or go on with what a checkpoint holds; returns how many steps are to be done now.

        Args:
            steps: At a beginning, how many the recipe has, where not 0; later, how many to do at most, where not 0.
            seed: Of all that is drawn.

        Raises:
            ValueError: for a prompt that the prior cannot make, or a run that is done.
        """
        from rl3d.search import begin, restore

        if not self.prompt.text:
            raise ValueError('say what to make, for example: ns-train rl3d-splats --prompt "a red mug"')
        recipe = self.recipe()
        if recipe.prior is not None:
            recipe.prior.check(self.prompt)
        device = str(self.device)
        if self.saved is None:
            recipe = replace(recipe, steps=steps or recipe.steps)
            CONSOLE.print(f"rl3d: drawing what {self.prompt.text!r} may look like ...")
            self.run = begin(recipe, self.prompt, seed=seed, device=device)
        else:
            plain = json.loads(self.saved["about"])["state"]
            if plain["prompt"]["text"] != self.prompt.text:
                raise ValueError(f"the checkpoint is of {plain['prompt']['text']!r}: ask for that, or begin anew")
            left = recipe.steps - plain["step"]
            if left < 1:
                raise ValueError(f"all {recipe.steps} steps of this run are done: begin anew, with other --max-num-iterations")
            self.run = restore(recipe, self.saved["tensors"], plain, device=device)
            steps = min(left, steps or left)
        self.model.render_settings = {"eps2d": recipe.scene.eps2d, "antialiased": recipe.scene.antialiased}
        self.datamanager.show(self.run.drawn)
        self.model.show(self.run.scene.splats())
        return steps or recipe.steps

    def advance(self) -> Report:
        """Do one step."""
        from rl3d.search import advance

        assert self.run is not None
        report = advance(self.run)
        self.model.show(self.run.scene.splats())
        self.datamanager.pixels = report.views.alpha.numel()
        return report

    def look(self) -> dict[str, float]:
        """What the recipe's rewards and guards say of the scene as it is ("guards/judge")."""
        from rl3d.record import Watcher, numbers

        recipe = self.recipe() if self.run is None else self.run.recipe
        if self._watcher is None:
            self._watcher = Watcher(recipe, self.prompt)
        return numbers(self._watcher.look(recipe.scene.build(self.model.splats())))

    def get_extra_state(self) -> dict[str, Any]:
        """What the checkpoint holds beside the model: the whole run, as tensors and JSON."""
        if self.run is None:
            return self.saved or {}
        from rl3d.recipe import describe
        from rl3d.search import state

        tensors, plain = state(self.run)
        about = {"state": plain, "recipe": describe(self.run.recipe), "render": self.model.render_settings}
        return {"tensors": tensors, "about": json.dumps(about)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.saved = state or None
        if state:
            from rl3d.optimize import drawn_views

            about, tensors = json.loads(state["about"]), state["tensors"]
            self.model.render_settings = about["render"]
            leader = f"{about['state']['order'][0]}/" if "order" in about["state"] else ""
            own = {name.removeprefix(leader): x for name, x in tensors.items() if name.startswith(leader)}
            self.datamanager.show(drawn_views(own, torch.device("cpu")))

    def get_eval_image_metrics_and_images(self, step: int) -> tuple[dict[str, float], dict[str, Tensor]]:
        """What rewards and guards say, and a sheet of pictures."""
        from rl3d.export.pictures import contact_sheet
        from rl3d.render.gaussians import look_at

        sheet = torch.from_numpy(contact_sheet(look_at(self.model.splats()), 128)) / 255
        return {**self.look(), "num_rays": float(sheet.shape[0] * sheet.shape[1])}, {"views": sheet}

    def get_average_eval_image_metrics(self, step: int | None = None, output_path: Any = None, get_std: bool = False) -> Any:
        """What rewards and guards say, for ``ns-eval``."""
        return self.look()


class SplatsTrainer(Trainer):
    """nerfstudio's loop around a step of ours, which has its own backward pass and optimiser."""

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        with plainly():
            self.config.max_num_iterations = self.pipeline.begin(self.config.max_num_iterations, self.config.machine.seed)

    def train_iteration(self, step: int) -> tuple[Tensor, dict[str, Tensor], dict[str, Any]]:
        """Do one step; losses are before weights, and their sum means little."""
        report = self.pipeline.advance()
        losses = {name: torch.tensor(x) for name, x in report.losses.items()}
        metrics = {"gaussians": float(report.size), "skipped": float(report.skipped)}
        return torch.stack([*losses.values(), torch.tensor(0.0)]).sum(), losses, metrics


@dataclass
class SplatsTrainerConfig(TrainerConfig):
    """How the run goes, as nerfstudio has it."""

    _target: type = field(default_factory=lambda: SplatsTrainer)
    max_num_iterations: int = 0
    """How many steps the recipe has; 0 for its own number. With a checkpoint to go on from: how many more, at most."""

    def set_experiment_name(self) -> None:
        """Name the experiment for its prompt, where it has no name."""
        if self.experiment_name is None and self.prompt:
            from rl3d.run import short_name

            self.experiment_name = short_name(self.prompt)
        super().set_experiment_name()


splats = MethodSpecification(
    SplatsTrainerConfig(
        method_name="rl3d-splats",
        steps_per_save=25,
        steps_per_eval_batch=0,
        steps_per_eval_image=10,
        steps_per_eval_all_images=0,
        machine=MachineConfig(device_type="cpu", seed=0),
        pipeline=SplatsPipelineConfig(),
        optimizers={},
        vis="viewer",
    ),
    description="rl3d: text to Gaussian splats, guided by a prior and by rewards. Give --prompt.",
)
