"""What a denoiser learns from, as its configuration says: built-in worlds (a bank or endless), recordings, a mix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from come_nav.core.settings import to_mapping
from come_nav.sim.splits import VALIDATION_SEEDS
from come_nav.sim.world_sets import BUILT_IN
from come_nav.training.config import DataSettings, TrainSettings
from come_nav.training.data.bank import LatentBank
from come_nav.training.data.bank_cache import BankCache, BankRecipe, files_facts, weights_digest
from come_nav.training.data.endless import DriveEncoder, EndlessWorlds
from come_nav.training.data.goals import GoalSettings
from come_nav.training.data.mixture import BankSource, MixtureStream, WindowSource
from come_nav.training.data.prefetch import Prefetched
from come_nav.training.data.sensing import DriveSenses, EstimatedDepth
from come_nav.training.data.sim_bank import drive_frames, sim_banks
from come_nav.training.data.windows import Encode, WindowBatch
from come_nav.training.tasks.views import with_estimated_depth
from come_nav.world_model.autoencoders.autoencoder import ImageAutoencoder
from come_nav.world_model.depth import DepthEstimator
from come_nav.world_model.images import ImageSettings, images_from_rgb

HELD_OUT = 0.1  # of recordings, to validate on, where nothing else is learned from
HELD_OUT_BATCH, HELD_OUT_SEED = 64, 1

# What a bank of built-in worlds depends on, beside the networks.
SIM_FACTS = ("episode_s", "drivers", "branches", "turn_branches", "keep_images", "keep_depth")
SENSES_FACTS = ("cameras", "measured_fraction", "sensors")  # where drives have their own cameras and sensors
MEMORY_FACTS = ("memory_s", "memory_drift_percent")  # where there is a memory


class TrainingData:
    """The windows of one run, made with its frozen autoencoder; banks come from the cache or are made for it.

    Args:
        config: of the run.
        folder: of the run; holds the cache unless the configuration names another place.
        device: where views are rendered and encoded.
        autoencoder: frozen; with the depth estimator it decides which cached banks fit.
        depth: estimates the depth of context frames, or None.
        images: the model's camera.
        first_alone: lets one process make what the others then find (see Processes); by default there is one process.
        progress: show bars while banks are made.
    """

    def __init__(
        self,
        config: TrainSettings,
        folder: Path,
        device: str,
        autoencoder: ImageAutoencoder,
        depth: DepthEstimator | None = None,
        images: ImageSettings | None = None,
        first_alone: Callable[[], AbstractContextManager[bool]] = lambda: nullcontext(True),
        progress: bool = True,
    ) -> None:
        data = config.data
        self.config, self.device, self.depth, self.images = config, device, depth, images or ImageSettings()
        self.autoencoder = autoencoder.eval().to(device)
        self.first_alone, self.progress = first_alone, progress
        self.cache = BankCache(Path(data.cache_folder or folder / "banks"), data.cache_limit_gb)

    def stream(self, batch_size: int, start: int, stop: int, rank: int = 0, world_size: int = 1) -> Prefetched:
        """Return the batches of steps ``start`` to ``stop``, for process ``rank``: its rows of ``batch_size`` in all.

        Raises:
            DataError: a recording cannot be read or is too short.
            StorageError: a bank does not fit on the disk or into the cache's limit.
        """
        sources, weights = self.sources(batch_size)
        mixture = MixtureStream(sources, weights, batch_size, self.config.seed, start, stop, rank, world_size)
        return Prefetched(mixture, device=self.device)

    def sources(self, batch_size: int) -> tuple[list[WindowSource], list[float]]:
        """Return the sources of windows and the share of each."""
        config, data = self.config, self._data()
        sampling = self._sampling(data)
        sources: list[WindowSource] = []
        weights: list[float] = []
        if data.worlds and (data.recording_fraction < 1.0 or not data.recordings):
            weights.append(1.0 - data.recording_fraction if data.recordings else 1.0)
            if data.endless:
                finish, senses = self._finish(), self._senses()
                finish = finish if senses is None else _as_it_is
                encoder = DriveEncoder(config.image_size, self._encode(), self.device, finish, senses)
                args = (data, config.context_frames, config.rate_hz, encoder, batch_size, config.seed, sampling)
                sources.append(EndlessWorlds(*args))
            else:
                seeds = range(data.first_world, data.first_world + data.worlds)
                sources.append(BankSource(self.worlds_bank("worlds", seeds), sampling))
        if data.recordings and (data.recording_fraction > 0.0 or not sources):
            banks = [self.recording_bank(path, self._use()[0]) for path in data.recordings]
            own: Sequence[float] = data.recording_weights or [
                float(len(bank.usable(config.context_frames))) for bank in banks
            ]
            share = data.recording_fraction if sources else 1.0
            sources += [BankSource(bank, sampling) for bank in banks]
            weights += [share * weight / sum(own) for weight in own]
        return sources, weights

    def prepare(self) -> None:
        """Make all banks that the run needs, or find them."""
        self.held_out(0)
        self.sources(1)

    def held_out(self, batches: int) -> list[WindowBatch]:
        """Return the batches that validate, always the same ones.

        They come from validation worlds, or from the end of the recordings where nothing else is learned from.
        """
        sampling = self._sampling(self._data())
        if self.config.data.worlds:
            seeds = VALIDATION_SEEDS[: self.config.data.validation_worlds]
            source: WindowSource = BankSource(self.worlds_bank("validation", seeds), sampling)
            sources, weights = [source], [1.0]
        else:
            banks = [self.recording_bank(path, self._use()[1]) for path in self.config.data.recordings]
            sources = [BankSource(bank, sampling) for bank in banks]
            weights = [float(len(bank.usable(self.config.context_frames))) for bank in banks]
        mixture = MixtureStream(sources, weights, HELD_OUT_BATCH, HELD_OUT_SEED, 0, batches)
        return list(mixture)

    def worlds_bank(self, name: str, seeds: Sequence[int]) -> LatentBank:
        """Return the bank of one drive through each world of ``seeds``."""
        data = self._data()
        facts = {**self._facts(), "seeds": [min(seeds), len(seeds)]}
        wanted = SIM_FACTS + (MEMORY_FACTS if data.memory_s else ())
        senses = self._senses()
        if senses is not None:
            wanted += SENSES_FACTS
            facts["memory_facts"] = senses.facts
            if name == "validation":  # in the colours of the worlds, so that losses compare
                senses = replace(senses, colour_spread=0.0)
            elif senses.colour_spread:
                facts["casts"] = senses.colour_spread
        if data.memory_s and data.memory_features == "latent":  # banks of the other kind keep their names
            facts["memory_features"] = data.memory_features
        if data.sets_of_worlds != (BUILT_IN,):
            facts["sets_of_worlds"] = list(data.sets_of_worlds)
        facts |= {key: value for key, value in to_mapping(data).items() if key in wanted}

        def recipe() -> BankRecipe:
            args = (data, self.config.image_size, self.config.rate_hz, self._encode(), self.device, self.progress)
            parts = map(self._finish() if senses is None else _as_it_is, sim_banks(seeds, *args, senses))
            return BankRecipe(len(seeds) * drive_frames(data, self.config.rate_hz), parts)

        return self._cached(name, facts, recipe)

    def recording_bank(
        self, path: str, use: tuple[float, float] | None = None, estimated_depth: bool = True
    ) -> LatentBank:
        """Return the bank of the part ``use`` of a bag or NWM folder; by default that which is learned from.

        It keeps the depth that was measured, estimated between (scaled to it) and where none was; with
        ``estimated_depth`` False only what was measured.
        """
        from come_nav.data import open_recording
        from come_nav.training.data.recording_bank import RecordingEncoder

        data = self._data() if estimated_depth else replace(self.config.data, keep_images=True, keep_depth=True)
        aspect, size = self.images.aspect, self.config.image_size
        part = self._use()[0] if use is None else use
        keep_depth = data.keep_depth or self.depth is not None
        facts = {
            **self._facts(estimated_depth),
            "recording": files_facts(Path(path)),
            "use": list(part),
            "aspect": aspect,
            "keep": [data.keep_images, keep_depth],
            "extrinsics": True,  # banks from before kept none
            **data.recording_flags,
        }

        def prepare(images: list[NDArray[np.uint8]]) -> torch.Tensor:
            return images_from_rgb(images, size, aspect)

        def recipe() -> BankRecipe:
            recording = open_recording(path, rate_hz=self.config.rate_hz, **data.recording_flags)
            keep = (data.keep_images, keep_depth)
            rate_hz = self.config.rate_hz
            encoder = RecordingEncoder(recording, part, prepare, self._encode(), rate_hz, aspect, *keep, self.progress)
            finish = self._finish() if estimated_depth else _as_it_is
            return BankRecipe(len(encoder), map(finish, encoder.parts()), encoder.segments)

        return self._cached(Path(path).stem, facts, recipe)

    # -- parts -------------------------------------------------------------------------------------------------------

    def _cached(self, name: str, facts: dict[str, Any], recipe: Callable[[], BankRecipe]) -> LatentBank:
        with self.first_alone():
            bank = self.cache.find(name, facts)
            return self.cache.make(name, facts, recipe()) if bank is None else bank

    def _use(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the parts of recordings that train and that validate (the end, where there are no worlds)."""
        low, high = self.config.data.recording_use
        split = high if self.config.data.worlds else high - HELD_OUT * (high - low)
        return (low, split), (split, high)

    def _data(self) -> DataSettings:
        """Return the data's configuration with what the networks of this run need."""
        data, looks = self.config.data, self.depth is not None
        apart = looks and self.config.denoiser_model.view_groups > 0
        return replace(data, keep_images=data.keep_images or looks, keep_depth=data.keep_depth or apart)

    def _sampling(self, data: DataSettings) -> GoalSettings:
        return data.sampling(self.config.context_frames, self.config.denoiser_model.older_frames)

    def _senses(self) -> DriveSenses | None:
        """Return what makes frames of drives in built-in worlds what a robot knows; None for networks of one camera."""
        apart, estimator, device = self.config.denoiser_model.view_groups > 0, self.depth, self.device
        if not apart and self.config.data.cameras is None:
            return None
        estimate = None if estimator is None else EstimatedDepth(estimator.eval().to(device))
        data = self.config.data
        return DriveSenses(estimate, apart, self.config.rate_hz, data.sensors, data.colour_spread)

    def _facts(self, estimated_depth: bool = True) -> dict[str, Any]:
        depth = self.depth if estimated_depth else None
        return {
            "autoencoder": weights_digest(self.autoencoder, self.autoencoder.settings),
            "depth": None if depth is None else weights_digest(depth, depth.settings),
            "image_size": self.config.image_size,
            "rate_hz": self.config.rate_hz,
        }

    def _encode(self) -> Encode:
        @torch.no_grad()
        def encode(images: torch.Tensor) -> torch.Tensor:
            return self.autoencoder.encode(images.to(self.device))

        return encode

    def _finish(self) -> Callable[[LatentBank], LatentBank]:
        estimator, device, progress, images = self.depth, self.device, self.progress, self.images
        if estimator is None:
            return _as_it_is
        return lambda bank: with_estimated_depth(bank, estimator, device, progress, images)


def _as_it_is(bank: LatentBank) -> LatentBank:
    return bank
