"""Single views of built-in worlds, for the autoencoder and the depth estimator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from tqdm import tqdm

from come_nav.core.geometry.point_rendering import camera_fractions
from come_nav.sim.meshes.furniture_view import KEPT_SCENES
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.mounting import CameraRanges, MountedCamera
from come_nav.sim.world_sets import BUILT_IN, world_set
from come_nav.sim.worlds import World, generate_world
from come_nav.training.data.sensing import DriveSensors
from come_nav.training.data.sharding import shard
from come_nav.training.data.sim_bank import random_free_poses, training_camera
from come_nav.training.data.windows import step_generator

WORLDS_PER_BATCH = 4
WORLDS_AT_ONCE = KEPT_SCENES  # of those with models
STEPS_PER_WORLD = 2  # after which the next of them replaces the first
Views = torch.Tensor | tuple[torch.Tensor, torch.Tensor] | tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class FrameStream(torch.utils.data.IterableDataset[Views]):
    """Fresh batches (B, 3, H, W) of views from random free poses; batch k depends only on (seed, k).

    ``batch_size`` is the total of ``world_size`` processes; process ``rank`` renders its share of the one draw.
    Worlds are rendered as the batches are consumed, on ``device``, four worlds to a batch; no view comes twice.
    Worlds that hold models take much memory once they are looked at: batches that follow each other look at the same
    few of these, which go round; after N steps the first ``WORLDS_AT_ONCE + N / STEPS_PER_WORLD`` have been seen.
    ``with_depth`` yields pairs of images and z-depth (B, H, W) in metres; with ``cameras``, each world is seen through
    a camera of its own, and triples have the camera (B, 4) as well.
    """

    def __init__(  # noqa: PLR0913, PLR0917
        self,
        seeds: Sequence[int],
        image_size: int,
        batch_size: int,
        seed: int,
        steps: range,
        device: str,
        rank: int = 0,
        world_size: int = 1,
        with_depth: bool = False,
        progress: bool = True,
        cameras: CameraRanges | None = None,
        sensors: str = "ideal",
        sets_of_worlds: Sequence[str] = (BUILT_IN,),
    ) -> None:
        super().__init__()
        self.seeds, self.image_size, self.batch_size = seeds, image_size, batch_size
        self.with_depth, self.progress = with_depth, progress
        self.seed, self.steps, self.device = seed, steps, device
        self.cameras, self.sensors = cameras, sensors
        self._sets = [world_set(name) for name in sets_of_worlds]
        self.rows = shard(batch_size, rank, world_size)
        self._worlds: list[World] | None = None
        self._modelled: list[int] = []  # numbers of the worlds with models
        self._raycaster: Raycaster | None = None

    def __iter__(self) -> Iterator[Views]:
        if self._worlds is None or self._raycaster is None:
            seeds = tqdm(self.seeds, desc="make worlds", unit="world", disable=not self.progress)
            self._worlds = [generate_world(own, self._sets[n % len(self._sets)]) for n, own in enumerate(seeds)]
            self._modelled = [number for number, world in enumerate(self._worlds) if world.models]
            self._raycaster = Raycaster(self._worlds, training_camera(self.image_size), device=self.device)
        per_world = -(-self.batch_size // WORLDS_PER_BATCH)
        for step in self.steps:
            generator = step_generator(self.seed, 10, step)
            chosen = chosen_worlds(len(self._worlds), self._modelled, step, generator)
            poses = torch.cat([random_free_poses(self._worlds[int(i)], per_world, generator) for i in chosen])
            poses = poses[: self.batch_size][self.rows]
            places = torch.arange(WORLDS_PER_BATCH).repeat_interleave(per_world)[: self.batch_size]
            place = places[self.rows]
            if self.cameras is None:
                images, depth_m = self._raycaster.render(poses.to(self.device), chosen[place].to(self.device))
                yield (images, depth_m) if self.with_depth else images
            else:
                drawn = [self.cameras.draw(self.image_size, generator) for _ in chosen]
                before = torch.bincount(places[: self.rows.start], minlength=WORLDS_PER_BATCH).tolist()
                yield self._varied(self._raycaster, poses, chosen, place, drawn, before, step)

    def _varied(
        self,
        raycaster: Raycaster,
        poses: torch.Tensor,
        chosen: torch.Tensor,
        place: torch.Tensor,
        cameras: list[MountedCamera],
        before: list[int],
        step: int,
    ) -> Views:
        """Return views of each chosen world through its own camera, as sensors show them; depth is the truth.

        Other processes render ``before`` views of each world.
        """
        parts = []
        for number, camera in enumerate(cameras):
            mine = poses[place == number].to(self.device)
            if not len(mine):
                continue
            renderer = raycaster.through(camera)
            images, depth_m = renderer.render(mine, chosen[number].expand(len(mine)).to(self.device))
            seed = (self.seed * 1_000_003 + step) * WORLDS_PER_BATCH + number
            images, _ = DriveSensors(self.sensors, camera.intrinsics, seed, 1.0, before[number]).alone(images, depth_m)
            fractions = camera_fractions(camera.intrinsics).to(images).expand(len(mine), -1)
            parts.append((images, depth_m, fractions))
        images, depth_m, fractions = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return (images, depth_m, fractions) if self.with_depth else images


def chosen_worlds(count: int, modelled: Sequence[int], step: int, generator: torch.Generator) -> torch.Tensor:
    """Return the numbers of a batch's worlds, of ``count``; ``modelled`` ones are of some that go round slowly."""
    chosen = torch.randint(count, (WORLDS_PER_BATCH,), generator=generator)
    near = min(WORLDS_AT_ONCE, len(modelled))
    for place, number in enumerate(chosen.tolist()):
        if number in modelled:
            rank = step // STEPS_PER_WORLD + modelled.index(number) % near
            chosen[place] = modelled[rank % len(modelled)]
    return chosen
