"""Banks on disk: written in parts, mapped, cached by what they were made from; damaged frames leave holes."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from come_nav.core.errors import DataError, StorageError
from come_nav.core.types import Frame
from come_nav.training.config import DataSettings, TrainSettings
from come_nav.training.data.bank import GoalSettings, LatentBank, step_generator
from come_nav.training.data.bank_cache import BankCache, BankRecipe, files_facts, weights_digest
from come_nav.training.data.bank_file import open_bank, write_bank
from come_nav.training.data.recording_bank import RecordingEncoder, recording_bank
from come_nav.training.data.sources import TrainingData
from come_nav.world_model.autoencoders.autoencoder import AutoencoderSettings, ImageAutoencoder
from come_nav.world_model.images import images_from_rgb

SIZE = 16


def part(start: int, count: int = 10, channels: int = 2) -> LatentBank:
    """A drive of ``count`` frames whose latents are their number in the whole."""
    number = torch.arange(start, start + count, dtype=torch.float32)
    return LatentBank(
        latents=number[:, None, None, None].expand(-1, channels, 4, 4).half(),
        poses_xyyaw=torch.stack([0.1 * number, 0 * number, 0 * number], 1),
        first=torch.zeros(count, dtype=torch.int64),
        last=torch.full((count,), count - 1),
        branch_latents=torch.zeros(count, 0, channels, 4, 4).half(),
        branch_actions_xyyaw=torch.zeros(count, 0, 3),
        branch_rel_frames=torch.zeros(count, 0, dtype=torch.int64),
        cameras=torch.full((1, 4), 0.5),
        camera_index=torch.zeros(count, dtype=torch.int64),
    )


def assert_equal(left: LatentBank, right: LatentBank) -> None:
    for field in dataclasses.fields(LatentBank):
        before, after = getattr(left, field.name), getattr(right, field.name)
        assert (before is None) == (after is None), field.name
        if before is not None:  # bit for bit; unknown extrinsics are NaN on both sides
            torch.testing.assert_close(before, after, rtol=0, atol=0, equal_nan=True, msg=field.name)


# -- files -----------------------------------------------------------------------------------------------------------


def test_parts_become_one_bank_that_any_reader_of_safetensors_reads(tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"
    write_bank(path, 30, (part(10 * index) for index in range(3)))
    mapped = open_bank(path)
    together = LatentBank.concatenate([part(10 * index) for index in range(3)])
    assert_equal(mapped, replace(together, cameras=part(0).cameras, camera_index=torch.zeros(30, dtype=torch.int64)))
    assert torch.equal(load_file(path)["latents"], mapped.latents)


def test_a_wrong_count_leaves_no_file(tmp_path: Path) -> None:
    for count in (25, 35):
        with pytest.raises(DataError, match=f"expected {count} frames"):
            write_bank(tmp_path / "bank.safetensors", count, (part(10 * index) for index in range(3)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 4, 100, -10])
def test_a_file_cut_anywhere_is_refused_in_one_line(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "bank.safetensors"
    write_bank(path, 10, [part(0)])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="delete it to have it made again"):
        open_bank(path)


def own_memory_mb() -> float:
    """Memory of this process that no file backs: what a bank must not take."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_sampling_and_writing_take_no_memory_of_the_size_of_the_bank(tmp_path: Path) -> None:
    """A bank of 66 MB: writing it and drawing batches from all over it take a few MB."""
    count, drives, channels = 1000, 32, 64
    path = tmp_path / "bank.safetensors"
    one = part(0, count, channels)
    one.latents = one.latents.contiguous()
    before = own_memory_mb()
    write_bank(path, count * drives, (replace(one) for _ in range(drives)))
    assert path.stat().st_size > 65e6
    assert own_memory_mb() - before < 20
    before = own_memory_mb()
    bank = open_bank(path)
    for step in range(60):
        bank.sample(GoalSettings(branch_fraction=0.0), 16, step_generator(0, 0, step))
    assert own_memory_mb() - before < 20


# -- the cache -------------------------------------------------------------------------------------------------------


def filled(cache: BankCache, name: str, **facts: object) -> LatentBank:
    found = cache.find(name, facts)
    return cache.make(name, facts, BankRecipe(10, [part(0)])) if found is None else found


def file_size(folder: Path) -> int:
    filled(BankCache(folder, 1.0), "p", x=0)
    return next(folder.iterdir()).stat().st_size


def test_a_bank_is_made_once_for_the_same_facts_only(tmp_path: Path) -> None:
    cache = BankCache(tmp_path, 1.0)
    assert cache.find("a", {"weights": "x"}) is None
    filled(cache, "a", weights="x")
    assert cache.find("a", {"weights": "x"}) is not None
    assert cache.find("a", {"weights": "y"}) is None


def test_a_damaged_bank_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = BankCache(tmp_path, 1.0)
    filled(cache, "a", weights="x")
    path = next(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:50])
    with caplog.at_level(logging.WARNING):
        assert len(filled(cache, "a", weights="x")) == 10
    assert "making it again" in caplog.text


def test_the_bank_used_longest_ago_leaves_first(tmp_path: Path) -> None:
    size = file_size(tmp_path / "probe")
    for number, name in enumerate("abc"):
        filled(BankCache(tmp_path / "banks", 1.0), name, x=name)
        path = next((tmp_path / "banks").glob(f"{name}-*"))
        os.utime(path, (1000 + number, 1000 + number))
    later = BankCache(tmp_path / "banks", 3.5 * size / 1e9)
    filled(later, "a", x="a")  # used again
    filled(later, "d", x="d")
    assert sorted(path.name[0] for path in (tmp_path / "banks").iterdir()) == ["a", "c", "d"]


def test_a_limit_too_small_for_the_run_is_told(tmp_path: Path) -> None:
    cache = BankCache(tmp_path, 1.5 * file_size(tmp_path / "probe") / 1e9)
    filled(cache, "a", x=1)
    with pytest.raises(StorageError, match=r"data\.cache_limit_gb"):
        filled(cache, "b", x=2)
    assert cache.find("a", {"x": 1}) is not None, "what the run holds stays"


def test_the_digest_follows_every_weight_and_setting() -> None:
    layer = torch.nn.Linear(3, 2)
    first = weights_digest(layer, "settings")
    assert weights_digest(layer, "settings") == first
    assert weights_digest(layer, "other") != first
    with torch.no_grad():
        layer.bias[1] += 1e-6
    assert weights_digest(layer, "settings") != first


# -- recordings ------------------------------------------------------------------------------------------------------


class Corridor:
    """A recording of 60 grey frames, each as bright as its number; some are damaged, and one gap is known."""

    name, rate_hz, intrinsics = "corridor", 4.0, None

    def __init__(
        self,
        damaged: tuple[int, ...] = (),
        segments: tuple[tuple[int, int], ...] = ((0, 60),),
        period_s: float = 0.25,
        start_m: float = 0.0,
    ) -> None:
        self.damaged, self.segments = damaged, list(segments)
        self.stamps_s = 1.79e9 + period_s * np.arange(60)
        self.poses_xyyaw: NDArray[np.float64] = np.stack([0.1 * np.arange(60), np.zeros(60), np.zeros(60)], 1)
        self.poses_xyyaw[:, :2] += start_m

    def __len__(self) -> int:
        return 60

    def frame(self, index: int) -> Frame:
        if index in self.damaged:
            raise DataError(f"frame {index} cannot be decoded")
        return Frame(index / 4.0, np.full((20, 30, 3), 4 * index, np.uint8))


def encoded(recording: Corridor, use: tuple[float, float] = (0.0, 1.0)) -> LatentBank:
    return recording_bank(
        recording,  # type: ignore[arg-type]
        use,
        lambda frames: images_from_rgb(frames, SIZE),
        lambda images: torch.nn.functional.avg_pool2d(images, 4),
        4.0,
    )


@pytest.mark.parametrize("period_s", [0.25, 0.3, 0.5, 0.675])
def test_times_are_those_of_the_images_however_slowly_they_come(period_s: float) -> None:
    """A frame of the model's rate is a quarter of a second; a goal lies within 64 of them."""
    bank, settings = encoded(Corridor(period_s=period_s)), GoalSettings(older_frames=3)
    batch = bank.sample(settings, 400, torch.Generator().manual_seed(0))
    ratio = period_s / 0.25
    torch.testing.assert_close(batch.frame_offsets[0], ratio * torch.arange(-3.0, 1.0), atol=1e-4, rtol=0)
    frames = (batch.actions_xyyaw[..., 0] / 0.1).round()
    torch.testing.assert_close(batch.rel_frames, (ratio * frames).clamp(-64.0, 64.0), atol=1e-3, rtol=0)
    assert batch.older is not None
    known = batch.older.known[:, -1]
    torch.testing.assert_close(
        batch.older.frame_offsets[known][:, -1], torch.full((int(known.sum()),), -4.0 * ratio), atol=1e-4, rtol=0
    )
    near = GoalSettings(near_fraction=1.0, turn_fraction=0.0, revisit_fraction=0.0)
    drawn = bank.sample(near, 400, torch.Generator().manual_seed(0)).rel_frames
    assert 8.0 - ratio < float(drawn.abs().max()) <= 8.0 + 1e-3


def test_motions_are_exact_far_from_a_maps_origin() -> None:
    here, far = encoded(Corridor()), encoded(Corridor(start_m=5.4e6))
    torch.testing.assert_close(far.poses_xyyaw, here.poses_xyyaw, atol=1e-6, rtol=0)


def test_windows_never_cross_damaged_frames_or_gaps(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        bank = encoded(Corridor((20, 21, 45), ((0, 35), (35, 60))))
    assert len(caplog.records) == 1
    assert "skipped 3 of 60 frames" in caplog.text
    batch = bank.sample(GoalSettings(), 2000, torch.Generator().manual_seed(0))

    def number(latents: torch.Tensor) -> torch.Tensor:
        return ((latents.mean(dim=(-3, -2, -1)) + 1.0) * 127.5 / 4).round().long()

    stretch = torch.bucketize(torch.arange(60), torch.tensor([20, 22, 35, 45, 46]), right=True)
    context, goals = number(batch.context_latents), number(batch.goal_latents)
    newest = context[:, -1:]
    assert torch.equal(stretch[context], stretch[newest].expand_as(context))
    assert torch.equal(stretch[goals], stretch[newest].expand_as(goals))
    assert torch.equal(context.diff(dim=1), torch.ones(2000, 3, dtype=torch.int64))
    assert set(stretch[newest[:, 0]].unique().tolist()) == {0, 2, 3, 5}, "every stretch between the holes is used"
    torch.testing.assert_close(batch.actions_xyyaw[..., 0], 0.1 * (goals - newest), atol=1e-5, rtol=0)


def test_parts_on_disk_equal_the_bank_in_memory(tmp_path: Path) -> None:
    recording = Corridor((31, 32, 33), ((0, 50), (50, 60)))
    encoder = RecordingEncoder(
        recording,  # type: ignore[arg-type]
        (0.1, 0.95),
        lambda frames: images_from_rgb(frames, SIZE),
        lambda images: torch.nn.functional.avg_pool2d(images, 4),
        4.0,
    )
    write_bank(tmp_path / "bank.safetensors", len(encoder), encoder.parts(), encoder.segments)
    mapped, whole = open_bank(tmp_path / "bank.safetensors"), encoded(recording, (0.1, 0.95))
    assert mapped.cameras is not None
    assert whole.cameras is not None
    assert mapped.cameras.isnan().all()
    shared = {"cameras": torch.zeros(1, 4), "camera_index": torch.zeros(51, dtype=torch.int64)}
    assert_equal(replace(mapped, **shared), replace(whole, **shared))


def test_a_recording_without_a_readable_frame_is_refused() -> None:
    with pytest.raises(DataError, match="none of 60 frames can be decoded"):
        encoded(Corridor(tuple(range(60))))
    with pytest.raises(DataError, match="only 1 frames"):
        encoded(Corridor(), (0.0, 0.02))


# -- bags and NWM folders through the same path ----------------------------------------------------------------------


def training_data(folder: Path, recordings: tuple[str, ...], channels: int = 8, **data: object) -> TrainingData:
    settings = AutoencoderSettings(SIZE, 4, (channels, 8, 8, 8), 1, 4)
    config = TrainSettings(
        image_size=SIZE,
        data=DataSettings(worlds=0, recordings=recordings, **data),  # type: ignore[arg-type]
        autoencoder_model=settings,
        denoiser_model=replace(TrainSettings().denoiser_model, input_size=settings.latent_size),
    )
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        return TrainingData(config, folder, "cpu", ImageAutoencoder(settings))


def nwm_folder(folder: Path, frames: int = 20) -> Path:
    import pickle

    import cv2

    folder.mkdir(parents=True)
    for index in range(frames):
        cv2.imwrite(str(folder / f"{index}.jpg"), np.full((24, 32, 3), 10 * index, np.uint8))
    position = np.stack([0.1 * np.arange(frames), np.zeros(frames)], 1)
    (folder / "traj_data.pkl").write_bytes(pickle.dumps({"position": position, "yaw": np.zeros(frames)}))
    return folder


def test_banks_of_other_worlds_or_drives_are_other_banks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several runs may share one cache."""
    monkeypatch.setattr(TrainingData, "_cached", lambda self, name, facts, recipe: facts)
    changes = (
        {},
        {"sets_of_worlds": ("maze",)},
        {"sets_of_worlds": ("built-in", "maze")},
        {"episode_s": 9.0},
        {"drivers": ("tour",)},
        {"branches": 1},
        {"memory_s": 10.0},
        {"memory_s": 10.0, "memory_drift_percent": 1.5},
    )
    facts = [training_data(tmp_path, ("unused",), **change).worlds_bank("worlds", range(3)) for change in changes]
    for index, own in enumerate(facts):
        assert own not in facts[:index], changes[index]


def test_a_folder_is_encoded_once_until_it_or_the_autoencoder_changes(tmp_path: Path) -> None:
    folder = nwm_folder(tmp_path / "drive")
    data = training_data(tmp_path / "run", (str(folder),))
    bank = data.recording_bank(str(folder))
    assert len(bank) == 18  # the last tenth validates
    cached = list((tmp_path / "run" / "banks").iterdir())
    assert len(cached) == 1
    training_data(tmp_path / "run", (str(folder),)).recording_bank(str(folder))
    assert [path.name for path in (tmp_path / "run" / "banks").iterdir()] == [cached[0].name]
    with torch.no_grad():
        next(data.autoencoder.parameters()).add_(0.01)
    data.recording_bank(str(folder))
    assert len(list((tmp_path / "run" / "banks").iterdir())) == 2, "a changed autoencoder never finds stale latents"
    shutil.copy(folder / "3.jpg", folder / "4.jpg")
    data.recording_bank(str(folder))
    assert len(list((tmp_path / "run" / "banks").iterdir())) == 3
    assert files_facts(folder)["files"] == 21


def test_a_stream_over_a_folder_yields_batches_on_the_device(tmp_path: Path) -> None:
    folder = nwm_folder(tmp_path / "drive")
    data = training_data(tmp_path / "run", (str(folder),), keep_images=True)
    batches = list(data.stream(4, 0, 3))
    assert len(batches) == 3
    assert batches[0].context_latents.shape == (4, 4, 4, 2, 2)
    assert batches[0].context_images is not None
    assert batches[0].goal_images is not None
    again = list(data.stream(4, 2, 3))
    assert torch.equal(batches[2].goal_latents, again[0].goal_latents)


@pytest.mark.shared_data
def test_a_real_bag_goes_the_same_way(shared_data: Path, tmp_path: Path) -> None:
    bags = sorted(path for path in (shared_data / "bags").iterdir() if (path / "metadata.yaml").exists())
    if not bags:
        pytest.skip("no bags beside the checkout")
    data = training_data(tmp_path, (str(bags[0]),), recording_use=(0.0, 0.2), keep_depth=True)
    batch = next(iter(data.stream(2, 0, 1)))
    assert torch.isfinite(batch.actions_xyyaw).all()
    assert batch.camera is not None
    assert len(batch) == 2
