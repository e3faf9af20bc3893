"""The whole flow on one page: observe, remember, imagine, score, act."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.errors import ConfigError, DataError, PlanningError
from come_nav.core.geometry import se2
from come_nav.core.protocols import Imaginer, Objective, WorldModel
from come_nav.core.resources import find_resource
from come_nav.core.types import Context, Frame, Goal, Imagination, Odometry, Plan, PlanStatus
from come_nav.experts.lora import LongTermExpert, adapted, adapter_metadata
from come_nav.localisation.relocalisation import RelocalisationResult, relocalise
from come_nav.memory.episodic.background import BackgroundTrainer
from come_nav.memory.episodic.memory import Adapter, EpisodicMemory
from come_nav.memory.episodic.shared_adapter import SharedAdapter
from come_nav.memory.short_term import FrameStatus, Remembered, ShortTermBuffer
from come_nav.memory.spatial.cloud import InsertResult, SpatialMemory
from come_nav.memory.spatial.lifting import model_camera
from come_nav.memory.spatial.remembered_views import ImageDifference, RememberedViews
from come_nav.memory.store.store import MemoryStore
from come_nav.navigation.experts_in_use import experts_in_use, unsupported_experts
from come_nav.navigation.settings import NavigationSettings
from come_nav.planning.cem import CemPlanner
from come_nav.planning.objectives import Clearance, GoalPose, ImageDistance, LatentDistance, Smoothness
from come_nav.planning.settings import ObjectiveSettings
from come_nav.world_model.episode_loss import EpisodeLoss
from come_nav.world_model.images import rgb_from_images
from come_nav.world_model.imaginer import ModelImaginer
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.reprojection import RenderedView

ClearanceFrom = Callable[[NDArray[np.float64]], Clearance | None]


class NavigationModel(WorldModel, Protocol):
    """A world model that also prepares camera images and binds a context for the planner."""

    def images_from_rgb(self, frames: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """Return (T, 3, S, S) in [-1, 1] of camera images of any size."""
        ...

    def context_from_frames(
        self,
        frames: Sequence[Frame],
        poses_xyyaw: NDArray[np.float64],
        frame_offsets: Sequence[float],
        *,
        latents: torch.Tensor | None = None,
        older: Sequence[tuple[Frame, NDArray[np.float64]]] = (),
        absolute_pose_xyyaw: NDArray[np.float64] | None = None,
    ) -> Context:
        """Return the context of frames, oldest first, seen from poses (T, 3) in odom; ``latents`` are theirs.

        Memories of the episode need ``older`` frames with their poses, and the newest frame's pose in odom.
        """
        ...

    def imaginer(
        self, context: Context, rel_frames: float, mode: Literal["jump", "rollout"] = "jump", *, decode: bool = False
    ) -> Imaginer:
        """Return an imaginer of candidates that end ``rel_frames`` protocol frames after the context."""
        ...


class NavStack:
    """Memory, world model and planner of one robot. A sensor that fails becomes a plan's status, never an exception.

    One thread may observe while another plans: a plan starts at the newest frame of the moment when it was asked for.
    """

    def __init__(self, model: NavigationModel, config: NavigationSettings | None = None) -> None:
        self.config = config or NavigationSettings()
        self.model = model
        self.memory = ShortTermBuffer(self.config.memory, self._encode)
        self.episode = EpisodeMemories(model, self.config)
        self._generator = torch.Generator().manual_seed(self.config.seed)
        self._odometry: Odometry | None = None
        self._last: tuple[Goal, Plan] | None = None
        self._lock, self._episodes = threading.RLock(), 0
        planner, steps_per_frame = self.config.planner, self.config.planner.dt_s * model.rate_hz
        if self.config.imagination == "rollout" and abs(steps_per_frame - 1.0) > 1e-6:
            raise ConfigError(f"planner.dt_s must be {1 / model.rate_hz:g} for a rollout, got {planner.dt_s:g}")
        if abs(self.config.memory.rate_hz - model.rate_hz) > 1e-6:
            raise ConfigError(
                f"memory.rate_hz must be the model's {model.rate_hz:g}, got {self.config.memory.rate_hz:g}"
            )

    def observe(self, frame: Frame, odometry: Odometry) -> FrameStatus:
        """Take what the robot saw and where it was; return what became of the frame."""
        with self._lock:
            # 1. Observe: the newest odometry tells the present twist.
            # 2. Remember: the buffer encodes and keeps the frame if it is due.
            verdict = self.memory.observe(frame.over_footprint(odometry.T_odom_base), odometry)
            if verdict in (FrameStatus.KEPT, FrameStatus.BETWEEN):
                self._odometry = odometry
            if verdict is FrameStatus.KEPT and self.memory.newest is not None:
                self.episode.observe(self.memory.newest)
            return verdict

    def plan(
        self, goal: Goal | None, now_s: float | None = None, clearance: Clearance | ClearanceFrom | None = None
    ) -> Plan:
        """Plan from the newest remembered frame to ``goal``.

        Args:
            goal: image, pose in odom, or both.
            now_s: present time on the clock of the stamps, to refuse stale sensors; None trusts the newest frame.
            clearance: obstacles in the newest remembered frame's base; or what tells them for that base's pose (3,) in
                odom, where frames may come meanwhile.

        Returns:
            Plan that starts at the newest remembered frame. Its status and message say why there is no path.
        """
        with self._lock:
            newest, episodes = self.memory.newest, self._episodes
            refusal = self._refusal(goal, newest, now_s)
            if refusal is not None or goal is None or newest is None:
                return _no_plan(refusal or (PlanStatus.NO_CONTEXT, ""), newest, self.config.planner.dt_s)
            twist = self.present_twist()
            # 3. Imagine: bind what was seen lately, and what is remembered, into the world model.
            imaginer, shown, warnings = self._imaginers(goal)
            # 4. Score: say what is wanted of an imagined future.
            objectives, weights = self._objectives(goal, newest, twist)
            warm_start = self._warm_start(goal)
        if clearance is not None and not isinstance(clearance, Clearance):
            clearance = clearance(newest.pose_odom_xyyaw)
        if clearance is not None:
            objectives.append(clearance)
            weights[clearance.name] = self.config.objective.clearance_weight
        # 5. Act: search the path whose end is best.
        planner = self.config.planner
        if goal.image_rgb is None:
            planner = self.config.pose_search.instead_of(planner)
        plan = CemPlanner(planner, objectives, weights).plan(
            imaginer,
            self._generator,
            stamp_s=newest.stamp_s,
            start_odom_xyyaw=newest.pose_odom_xyyaw,
            initial_twist=twist,
            warm_start=warm_start,
        )
        if warnings:
            plan = replace(plan, message="; ".join([plan.message, *warnings] if plan.message else warnings))
        with self._lock:
            if episodes == self._episodes:
                self._last = (goal, plan)
        return self._with_imagined(plan, shown)

    def relocalise(
        self,
        image_rgb: NDArray[np.uint8],
        starts_odom_xyyaw: NDArray[np.float64],
        stopped: Callable[[], bool] = lambda: False,
    ) -> RelocalisationResult | None:
        """Return where an image (H, W, 3) was taken, as far as the spatial memory knows; None without one.

        The search begins at ``starts_odom_xyyaw`` (K, 3), the most promising first, and ends early once ``stopped()``.
        """
        wanted = self.model.images_from_rgb([image_rgb])[0]
        rough, exact = (self.episode.difference_to(wanted, rough) for rough in (True, False))
        if rough is None or exact is None:
            return None
        return relocalise(rough, exact, starts_odom_xyyaw, self._generator, self.config.relocalisation, stopped)

    def reset(self) -> None:
        """Forget everything, e.g. when the robot was carried away or a new episode begins."""
        with self._lock:
            self.memory.clear()
            self.episode.reset()
            self._odometry, self._last = None, None
            self._episodes += 1
            self._generator.manual_seed(self.config.seed)

    def context(self) -> Context | None:
        """Return the newest frames as the world model takes them, or None while there are too few."""
        frames = self.memory.context_frames(self.model.context_frames)
        if not frames:
            return None
        latents = torch.stack([frame.features for frame in frames if frame.features is not None])
        poses = np.stack([frame.pose_odom_xyyaw for frame in frames])
        ages_s = np.array([frame.stamp_s - frames[-1].stamp_s for frame in frames])
        offsets = np.round(ages_s * self.model.rate_hz).tolist()
        past: dict[str, Any] = {}
        if self.episode.experts.names:
            count = self.config.experts.older_frames if "short_term" in self.episode.experts.names else 0
            older = self.memory.newest_frames(len(frames) + count)[: -len(frames)]
            past["older"] = [(own.frame, own.pose_odom_xyyaw) for own in older]
            past["absolute_pose_xyyaw"] = frames[-1].pose_odom_xyyaw
        return self.model.context_from_frames(
            [frame.frame for frame in frames], poses, offsets, latents=latents, **past
        )

    def close(self) -> None:
        """End what runs in the background."""
        self.episode.close()

    def present_twist(self) -> NDArray[np.float64] | None:
        """Return (v m/s, w rad/s) as odometry measured it, else from the last two remembered poses."""
        odometry = self._odometry
        if odometry is not None and odometry.v_mps is not None and odometry.w_radps is not None:
            measured = np.array([odometry.v_mps, odometry.w_radps])
            return measured if np.isfinite(measured).all() else None
        frames = self.memory.context_frames(2)
        if not frames:
            return None
        before, now = frames
        v, w = se2.twist_between(before.pose_odom_xyyaw, now.pose_odom_xyyaw, now.stamp_s - before.stamp_s)
        return np.array([v, w])

    def _encode(self, frame: Frame) -> torch.Tensor:
        return self.model.encode(self.model.images_from_rgb([frame.rgb]))[0]

    def _refusal(
        self, goal: Goal | None, newest: Remembered | None, now_s: float | None
    ) -> tuple[PlanStatus, str] | None:
        if goal is None:
            return PlanStatus.GOAL_MISSING, "no goal was given"
        if newest is None:
            return PlanStatus.NO_CONTEXT, "no frame with odometry has come yet"
        if now_s is not None and not now_s - newest.stamp_s <= self.config.max_sensor_age_s:
            age_s, limit_s = now_s - newest.stamp_s, self.config.max_sensor_age_s
            return PlanStatus.STALE_SENSOR, f"the newest frame is {age_s:.2f} s old, allowed are {limit_s:g} s"
        if goal.image_rgb is not None and len(self.memory) < self.model.context_frames:
            return PlanStatus.NO_CONTEXT, f"{len(self.memory)} of {self.model.context_frames} context frames so far"
        return None

    def _imaginers(self, goal: Goal) -> tuple[Imaginer, Imaginer | None, list[str]]:
        """Return what imagines candidates, what imagines the view at the end of a plan, and warnings."""
        by_view = goal.image_rgb is not None
        can_show = self.config.show_imagined and len(self.memory) >= self.model.context_frames
        if not by_view and not can_show:
            return _PathsOnly(), None, []
        model, warnings = self.episode.model()
        imaginer = self._imaginer(model)
        return (imaginer, imaginer, warnings) if by_view else (_PathsOnly(), imaginer, [])

    def _imaginer(self, model: NavigationModel) -> Imaginer:
        context = self.context()
        if context is None:
            raise RuntimeError("the context was checked before")
        rel_frames = self.config.planner.horizon_steps * self.config.planner.dt_s * self.model.rate_hz
        decode = self.config.objective.view_distance.startswith("image")
        return model.imaginer(context, rel_frames, self.config.imagination, decode=decode)

    def _objectives(
        self, goal: Goal, newest: Remembered, twist: NDArray[np.float64] | None
    ) -> tuple[list[Objective], dict[str, float]]:
        wanted, planner = self.config.objective, self.config.planner
        known_twist = None if twist is None else torch.from_numpy(twist)
        objectives: list[Objective] = [Smoothness(planner.dt_s, initial_twist=known_twist)]
        weights = {"smoothness": wanted.smoothness_weight}
        if goal.image_rgb is not None:
            image = self.model.images_from_rgb([goal.image_rgb])
            view = view_objective(wanted, image, self.model)
            objectives.append(view)
            weights[view.name] = wanted.view_weight
        if goal.pose_odom_xyyaw is not None:
            target = se2.relative(newest.pose_odom_xyyaw, goal.pose_odom_xyyaw)
            objectives.append(
                GoalPose(torch.from_numpy(target), wanted.pose_weight, wanted.yaw_weight, wanted.path_cost_fraction)
            )
        return objectives, weights

    def _warm_start(self, goal: Goal) -> Plan | None:
        same = self.config.warm_start and self._last is not None and self._last[0] is goal
        return self._last[1] if same and self._last is not None else None

    def _with_imagined(self, plan: Plan, imaginer: Imaginer | None) -> Plan:
        if imaginer is None or plan.status is not PlanStatus.OK or not self.config.show_imagined:
            return plan
        path = torch.from_numpy(plan.poses_xyyaw).float()[None]
        showing = replace(imaginer, decode=True) if isinstance(imaginer, ModelImaginer) else imaginer
        return replace(plan, imagined_rgb=imagined_rgb(self.model, showing, path, self._generator)[0])


class EpisodeMemories:
    """The spatial and the episodic memory of one robot, and the world model that looks at those that can be used.

    A memory that fails never stops the robot: its expert is left out, and the plan says why.

    Attributes:
        imagines: whether adapters are made ready for imagining here; False where they are trained for others.
        experts: which memory experts are in use.
    """

    def __init__(self, model: NavigationModel, config: NavigationSettings) -> None:
        self.base_model, self.config = model, config
        self.imagines = True
        self.spatial: SpatialMemory | None = None
        self.episodic: EpisodicMemory | None = None
        self._model = model if isinstance(model, DiffusionWorldModel) else None  # the one that takes experts
        self._expert: LongTermExpert | None = None
        self._trainer: BackgroundTrainer | None = None
        self._loss: EpisodeLoss | None = None
        self._views: RememberedViews | None = None
        self._shared: SharedAdapter | None = None
        self.experts = experts_in_use(config.experts, unsupported_experts(model, config.experts))
        self._diagnostics: dict[str, str] = dict(self.experts.left_out)
        if "spatial" in self.experts.names:
            self.spatial = SpatialMemory(config.spatial)
        if "long_term" in self.experts.names and self._model is not None:
            begin = self._begin_sharing if config.experts.adapter_store else self._begin_training
            begin(self._model)

    @property
    def adapter(self) -> Adapter | None:
        """The adapter that the long-term expert uses, or None; its metadata tells version, steps and frames."""
        if self._shared is not None:
            return self._shared.adapter
        return None if self.episodic is None else self.episodic.newest

    @property
    def diagnostics(self) -> dict[str, str]:
        """Why experts that are wanted cannot work now, by name."""
        return self._diagnostics | self._present_diagnostics()

    @property
    def training_diagnosis(self) -> str | None:
        """Why no newer adapter is to be expected, or None; the one in use, if any, is not affected."""
        failure = None if self._trainer is None else self._trainer.failure
        stopped = None if self.episodic is None else self.episodic.stopped
        shared = None if self._shared is None else self._shared.diagnosis
        found = failure or stopped or shared or self._diagnostics.get("long_term")
        return None if found is None else str(found)

    def observe(self, seen: Remembered) -> None:
        """Memorise a frame that the short-term memory kept."""
        if self._shared is not None:
            self._shared.poll()
        views = self._views_through(seen.frame)
        shown = self._shown(views, seen)  # before the spatial memory holds the frame
        if self.spatial is not None:
            noted = self.spatial.observe(self._with_depth(seen.frame), seen.pose_odom_xyyaw)
            if noted is InsertResult.KEPT and self._views is None:
                self._views = views
        if self.episodic is not None and self._loss is not None and seen.features is not None:
            image = self.base_model.images_from_rgb([seen.frame.rgb])[0]
            pose = torch.from_numpy(seen.pose_odom_xyyaw).float()
            try:
                self.episodic.observe(
                    seen.features, pose, seen.stamp_s, self._loss.frame(image, shown, seen.frame.T_base_camera)
                )
                self._diagnostics.pop("long_term", None)
            except DataError as error:  # frames of another kind than those that are remembered
                self._diagnostics["long_term"] = str(error)

    def _views_through(self, frame: Frame) -> RememberedViews | None:
        """Return what shows the spatial memory to the camera of ``frame``; None without a memory or a calibration."""
        camera, extrinsics = frame.intrinsics, frame.T_base_camera
        if self.spatial is None or self._model is None or camera is None or extrinsics is None:
            return None
        return RememberedViews(self.spatial, camera, extrinsics, self._model.images.aspect)

    def _shown(self, views: RememberedViews | None, seen: Remembered) -> RenderedView | None:
        """Return what the spatial memory shows of a frame that it does not hold yet, for the adapter to learn from.

        None where none learns; an empty layer where the camera is not known yet.
        """
        if self.spatial is None or self.episodic is None or self._model is None:
            return None
        if views is None:
            blank = torch.zeros(1, self._model.image_size, self._model.image_size)
            return RenderedView(blank.expand(3, -1, -1)[None], blank.bool(), blank)
        poses = torch.from_numpy(seen.pose_odom_xyyaw).float()[None]
        return RenderedView(*views.views(poses, self._model.image_size))

    def model(self) -> tuple[NavigationModel, list[str]]:
        """Return the world model as it can remember now, and a warning for each expert that is left out."""
        diagnosis = self.diagnostics
        usable = [name for name in self.experts.names if name not in diagnosis]
        warnings = self.experts.warnings_of(diagnosis)
        if self._model is None or not usable:
            return self.base_model, warnings
        spatial = self._views if "spatial" in usable else None
        long_term = self._expert if "long_term" in usable else None
        model = self._model.with_memory(spatial, long_term)
        return model.composed(self.config.experts.weights(usable), self.config.experts.mode), warnings

    def difference_to(self, image: torch.Tensor, rough: bool = False) -> ImageDifference | None:
        """Return what compares remembered views with an image (3, S, S), roughly or exactly.

        None without a spatial memory.
        """
        if self._views is None or self._model is None or self.spatial is None or not len(self.spatial):
            return None
        search = self.config.relocalisation
        how = (math.gcd(search.rough_px, self._model.image_size), search.rough_m) if rough else (0, 0.0)
        return ImageDifference(self._views, self._model.encode, image, search.unknown_weight, *how)

    def reset(self) -> None:
        """Forget the episode."""
        if self.spatial is not None:
            self.spatial.clear()
        if self.episodic is not None:
            self.episodic.reset()

    def start(self) -> None:
        """Go on training after :meth:`close`."""
        if self._trainer is not None:
            self._trainer.start()

    def close(self) -> None:
        """End the training; what was trained stays in use."""
        if self._trainer is not None:
            self._trainer.stop()

    def _present_diagnostics(self) -> dict[str, str]:
        found = {}
        if self.spatial is not None and not len(self.spatial):
            reasons = ", ".join(f"{name} {count}" for name, count in self.spatial.rejected.most_common(2))
            found["spatial"] = f"nothing is remembered yet{f' (frames refused: {reasons})' if reasons else ''}"
        if self._expert is not None and not self._expert.has_adapter:
            where = "is trained" if self._shared is None else f"is in {self._shared.store.path}"
            found["long_term"] = self.training_diagnosis or f"no adapter {where} yet"
        return found

    def _begin_sharing(self, model: DiffusionWorldModel) -> None:
        """Use what another process trains."""
        expert = self._expert = LongTermExpert(model.memory_base, self.config.lora)

        def use(adapter: Adapter | None) -> None:
            expert.swap(None if adapter is None else adapter.tensors)

        store = MemoryStore(Path(self.config.experts.adapter_store).expanduser())
        self._shared = SharedAdapter(store, adapter_metadata(model.memory_base, self.config.lora), use)
        self._shared.poll()

    def _begin_training(self, model: DiffusionWorldModel) -> None:
        settings, lora = replace(self.config.episodic, context_frames=model.context_frames), self.config.lora
        expert = LongTermExpert(model.memory_base, lora)

        def publish(adapter: Adapter | None) -> None:
            if self.imagines:
                expert.swap(None if adapter is None else adapter.tensors)

        try:
            network = adapted(model.memory_base, lora, torch.Generator().manual_seed(self.config.seed))
        except ImportError as error:
            self._diagnostics["long_term"] = f"{error}; install peft"
            return
        self._expert, self._loss = expert, EpisodeLoss(model)
        facts = adapter_metadata(model.memory_base, lora)
        self.episodic = EpisodicMemory(network, self._loss, settings, on_publish=publish, metadata=facts)
        self._trainer = BackgroundTrainer(self.episodic, self.config.experts.budget)
        self._trainer.start()

    def _with_depth(self, frame: Frame) -> Frame:
        """Return the frame; as the model sees it with its own estimate where there is no depth and that is wanted."""
        model, wanted = self._model, frame.depth_m is None and self.config.experts.estimate_depth
        if not wanted or model is None or model.depth is None or frame.intrinsics is None:
            return frame
        image = model.images_from_rgb([frame.rgb])
        camera = model_camera(frame.intrinsics, model.image_size, model.images.aspect)
        depth_m = model.estimate_depth_m(image)[0].float().cpu().numpy()
        return Frame(frame.stamp_s, rgb_from_images(image)[0], depth_m, camera, frame.T_base_camera)


def load_stack(config: NavigationSettings) -> NavStack:
    """Return a stack with the model and on the device that ``config`` names; raise ConfigError or CheckpointError."""
    return NavStack(load_configured_model(config), config)


def load_configured_model(config: NavigationSettings) -> DiffusionWorldModel:
    """Return the model that ``config`` names, with its sampler where one is set, and its batch sizes and precision."""
    model = DiffusionWorldModel.load(find_resource("models", config.model), choose_device(config.device))
    model.sampler = config.sampler or model.sampler
    model.inference = config.inference
    return model


def choose_device(name: str) -> str:
    """Return the torch device that ``auto`` or a name means here; raise ConfigError where it is absent."""
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device is '{name}', but this machine has no CUDA device; use cpu or auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


class _PathsOnly:
    """Imagines nothing: goals that are poses need no images."""

    def imagine(self, poses_xyyaw: torch.Tensor, generator: torch.Generator) -> Imagination:
        """Return the paths alone."""
        return Imagination(poses_xyyaw)


def view_objective(wanted: ObjectiveSettings, goal_image: torch.Tensor, model: WorldModel) -> Objective:
    """Return the distance between imagined view and goal image (1, 3, H, W) that ``wanted.view_distance`` names."""
    if wanted.view_distance == "image_l1":
        return ImageDistance(goal_image, "l1", wanted.image_scales)
    if wanted.view_distance == "image_l2":
        return ImageDistance(goal_image, "l2", wanted.image_scales)
    return LatentDistance(model.encode(goal_image), "mse" if wanted.view_distance == "latent" else "cosine")


def imagined_rgb(
    model: WorldModel, imaginer: Imaginer, poses_xyyaw: torch.Tensor, generator: torch.Generator
) -> NDArray[np.uint8]:
    """Return uint8 images (S, H, W, 3) of the views imagined at the end of paths (S, T, 3)."""
    imagination = imaginer.imagine(poses_xyyaw, generator)
    images = imagination.images
    if images is None and imagination.latents is not None:
        images = model.decode(imagination.latents)
    if images is None:
        raise PlanningError("the imaginer returns neither images nor latents")
    return rgb_from_images(images)


def _no_plan(refusal: tuple[PlanStatus, str], newest: Remembered | None, dt_s: float) -> Plan:
    status, message = refusal
    stamp_s = 0.0 if newest is None else newest.stamp_s
    start = np.zeros(3) if newest is None else newest.pose_odom_xyyaw
    return Plan(status, stamp_s, dt_s, np.zeros((0, 3)), start, message=message)
