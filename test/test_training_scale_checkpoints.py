"""Checkpoints survive full disks, kills, NaN and Ctrl-C, and a run goes on from them exactly."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from training_samples import CONFIG, MACHINE, STAGE

from come_nav.cli import main
from come_nav.core.errors import CheckpointError, ComeNavError, StorageError
from come_nav.core.files import temporary_beside
from come_nav.core.settings import to_mapping
from come_nav.experts.base import BaseExpert
from come_nav.experts.cdit import CDiT
from come_nav.experts.normalizer import Normalizer
from come_nav.training import checkpoints
from come_nav.training.checkpoints import AtomicCheckpointIO, newest_checkpoint, numbered_checkpoints, steps_done
from come_nav.training.data.bank import LatentBank
from come_nav.training.data.sources import TrainingData
from come_nav.training.run import Run
from come_nav.training.run_parts import seeded_layers
from come_nav.training.tasks.denoiser import DenoiserTask
from come_nav.world_model.autoencoders.autoencoder import ImageAutoencoder
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.sampling.schedule import NoiseSchedule


def random_bank() -> LatentBank:
    """Latents without images: no world is rendered."""
    generator = torch.Generator().manual_seed(0)
    count = 24
    return LatentBank(
        latents=torch.randn(count, 4, 8, 8, generator=generator).half(),
        poses_xyyaw=torch.randn(count, 3, generator=generator),
        first=torch.zeros(count, dtype=torch.int64),
        last=torch.full((count,), count - 1),
        branch_latents=torch.randn(count, 1, 4, 8, 8, generator=generator).half(),
        branch_actions_xyyaw=torch.randn(count, 1, 3, generator=generator),
        branch_rel_frames=torch.ones(count, 1, dtype=torch.int64),
    )


@pytest.fixture(scope="module")
def model() -> DiffusionWorldModel:
    """What every run here starts from, so that the autoencoder's stage is left out."""
    schedule = NoiseSchedule.linear()
    with seeded_layers(0):
        expert = BaseExpert(CDiT.from_settings(CONFIG.denoiser_model), Normalizer(), schedule, "v")
        autoencoder = ImageAutoencoder(CONFIG.autoencoder_model)
    return DiffusionWorldModel(autoencoder, {"base": expert}, schedule, CONFIG.sampler)


@pytest.fixture(autouse=True)
def no_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = random_bank()
    monkeypatch.setattr(TrainingData, "worlds_bank", lambda self, *unused: bank)


@pytest.fixture(scope="module")
def whole(model: DiffusionWorldModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Weights of a run that nothing disturbed, without images."""
    from come_nav.training.samples import SampleImages

    bank = random_bank()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingData, "worlds_bank", lambda self, *unused: bank)
        patch.setattr(SampleImages, "on_validation_batch_end", lambda *unused: None)
        exported = Run(CONFIG, tmp_path_factory.mktemp("whole"), MACHINE, model).finish()
    return DiffusionWorldModel.load(exported).base.state_dict()


@pytest.fixture
def weights(model: DiffusionWorldModel) -> Callable[[Path], dict[str, torch.Tensor] | None]:
    """Run in a folder whatever is not done; return the exported weights, None when it stopped before."""

    def finish(folder: Path) -> dict[str, torch.Tensor] | None:
        exported = Run(CONFIG, folder, MACHINE, model).finish()
        return None if exported is None else DiffusionWorldModel.load(exported).base.state_dict()

    return finish


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Do something in the middle of a training step."""

    @contextmanager
    def patch(step: int, action: Callable[[DenoiserTask], Any]) -> Iterator[None]:
        original = DenoiserTask.training_step

        def training_step(self: DenoiserTask, batch: Any, batch_idx: int) -> torch.Tensor:
            if self.global_step == step:
                action(self)
            return original(self, batch, batch_idx)

        with monkeypatch.context() as context:
            context.setattr(DenoiserTask, "training_step", training_step)
            yield

    return patch


def assert_equal(one: dict[str, torch.Tensor] | None, two: dict[str, torch.Tensor] | None) -> None:
    assert one is not None
    assert two is not None
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name


def test_what_a_finished_run_leaves_and_that_it_does_not_train_again(weights, whole, tmp_path, at_step) -> None:
    assert_equal(weights(tmp_path), whole)
    folder = tmp_path / "denoiser"
    assert sorted(p.name for p in folder.iterdir()) == [
        "best.ckpt",
        "last.ckpt",
        "step-0000006.ckpt",
        "step-0000008.ckpt",
    ]
    assert (folder / "last.ckpt").samefile(folder / "step-0000008.ckpt"), "the newest is kept twice on disk"
    assert list((tmp_path / "tensorboard").rglob("events*"))

    def fail(task: DenoiserTask) -> None:
        raise AssertionError("a finished stage was trained again")

    with at_step(8, fail):
        assert_equal(whole, weights(tmp_path))


def test_images_reach_the_run_folder_and_tensorboard_and_change_nothing(weights, whole, tmp_path) -> None:
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    drawn = weights(tmp_path / "drawn")
    image = Image.open(tmp_path / "drawn" / "samples" / "denoiser" / "0000004.png")
    columns = CONFIG.context_frames + 2 * 2  # context, then truth and imagined of two goals
    assert image.size == (columns * 66 - 2, 4 * 66 - 2)
    events = EventAccumulator(str(tmp_path / "drawn" / "tensorboard" / "denoiser"))
    events.Reload()
    assert [event.step for event in events.Images("samples")] == [4, 8]
    assert {"train/loss", "validation/loss"} <= set(events.Tags()["scalars"])
    assert_equal(drawn, whole)


def test_an_image_leaves_every_random_state_as_it_was(tmp_path, monkeypatch) -> None:
    import random
    from contextlib import nullcontext
    from types import SimpleNamespace

    import numpy as np

    from come_nav.training.samples import SampleImages

    def draw(*unused: Any) -> torch.Tensor:
        random.random()
        np.random.rand()  # noqa: NPY002
        return torch.rand(2, 2, 3, 8, 8)

    monkeypatch.setattr(SampleImages, "draw", draw)
    precision = SimpleNamespace(forward_context=nullcontext)
    trainer: Any = SimpleNamespace(is_global_zero=True, precision_plugin=precision, global_step=3, loggers=[])
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    SampleImages(tmp_path).on_validation_batch_end(trainer, None, None, None, 0)  # type: ignore[arg-type]
    assert (tmp_path / "0000003.png").is_file()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])  # noqa: NPY002


def test_a_full_disk_ends_the_run_in_one_line_and_keeps_the_last_checkpoint(whole, model, tmp_path, capsys) -> None:
    """The write of step 6 lands on /dev/full, which has no space left; the one of step 3 stays and is gone on from."""
    folder = tmp_path / "run" / "denoiser"
    folder.mkdir(parents=True)
    temporary_beside(folder / "step-0000006.ckpt").symlink_to("/dev/full")
    model.save(tmp_path / "start")
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(to_mapping(CONFIG)), encoding="utf-8")
    words: list[Any] = [
        "train",
        "--config",
        tmp_path / "toy.yaml",
        "--init",
        tmp_path / "start",
        "--out",
        tmp_path / "run",
    ]
    words += ["--accelerator", "cpu", "--no-progress"]
    assert main.main([str(word) for word in words]) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("come-nav:")]
    assert said == [
        f"come-nav: {folder / 'step-0000006.ckpt'}: no space left on the disk; free some or choose another folder"
    ]
    assert sorted(p.name for p in folder.iterdir()) == ["best.ckpt", "last.ckpt", "step-0000003.ckpt"]
    assert steps_done(newest_checkpoint(folder)) == 3
    assert main.main([str(word) for word in words]) == 0
    resumed = DiffusionWorldModel.load(tmp_path / "run" / "toy").base.state_dict()
    again = Run(CONFIG, tmp_path / "again", MACHINE, DiffusionWorldModel.load(tmp_path / "start")).finish()
    assert_equal(DiffusionWorldModel.load(again).base.state_dict(), resumed)


def test_weights_that_are_not_finite_are_never_saved(weights, model, tmp_path, at_step) -> None:
    """The loss is looked at only every 100 steps here, so the weights are NaN when the next checkpoint is due."""

    def spoil(task: DenoiserTask) -> None:
        with torch.no_grad():
            next(task.parameters()).fill_(float("nan"))

    config = replace(CONFIG, denoiser=replace(STAGE, log_every=100, validate_every=8))
    with at_step(4, spoil), pytest.raises(ComeNavError, match=r"no longer finite: '.*' holds NaN .* at step 6"):
        Run(config, tmp_path, MACHINE, model).finish()
    newest = newest_checkpoint(tmp_path / "denoiser")
    assert steps_done(newest) == 3
    state = torch.load(newest, weights_only=True)
    assert all(torch.isfinite(value).all() for value in state["current_model_state"].values())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_after_the_step_and_the_run_goes_on_exactly(weights, whole, tmp_path, at_step, number) -> None:
    before = signal.getsignal(number)
    with at_step(4, lambda task: os.kill(os.getpid(), number)):
        assert weights(tmp_path / "cut") is None
    assert signal.getsignal(number) is before
    assert steps_done(newest_checkpoint(tmp_path / "cut" / "denoiser")) == 5
    assert_equal(whole, weights(tmp_path / "cut"))


def test_a_kill_while_writing_leaves_the_old_checkpoint_and_nothing_that_could_be_taken_for_one(
    tmp_path, monkeypatch
) -> None:
    path = tmp_path / "last.ckpt"
    good = {"state_dict": {"w": torch.ones(3)}, "global_step": 5}
    AtomicCheckpointIO().save_checkpoint(good, path)

    def dies(checkpoint: Any, handle: Any) -> None:
        handle.write(b"half of a checkpoint")
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.torch, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpointIO().save_checkpoint({**good, "global_step": 6}, path)
    (tmp_path / ".step-0000007.ckpt.99.tmp").write_bytes(b"what kill -9 leaves")
    (tmp_path / "step-x.ckpt").write_bytes(b"somebody else's")
    assert steps_done(newest_checkpoint(tmp_path)) == 5
    assert numbered_checkpoints(tmp_path) == []


def test_the_error_of_a_full_disk_is_not_hidden_by_torch(tmp_path) -> None:
    temporary_beside(tmp_path / "a.ckpt").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"a\.ckpt: no space left"):
        AtomicCheckpointIO().save_checkpoint({"state_dict": {"w": torch.ones(100_000)}}, tmp_path / "a.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_its_last_file_goes_on_from_the_newest_numbered_one(weights, whole, tmp_path, at_step) -> None:
    def die(task: DenoiserTask) -> None:
        raise RuntimeError("killed")

    with at_step(7, die), pytest.raises(RuntimeError, match="killed"):
        weights(tmp_path / "cut")
    folder = tmp_path / "cut" / "denoiser"
    (folder / "last.ckpt").unlink()
    (folder / "last.ckpt").write_bytes(b"damaged by somebody")
    with pytest.raises(
        CheckpointError, match=r"last\.ckpt: cannot be resumed from .*delete it to go on from step-0000006"
    ):
        weights(tmp_path / "cut")
    (folder / "last.ckpt").unlink()
    assert_equal(whole, weights(tmp_path / "cut"))


def test_the_best_checkpoint_outlives_the_rotation(tmp_path, model) -> None:
    """With one numbered file kept, and validation only at the start, best.ckpt is older than all others."""
    stage = replace(STAGE, steps=7, save_every=1, keep_checkpoints=1, validate_every=4)
    Run(replace(CONFIG, denoiser=stage), tmp_path, MACHINE, model).finish()
    folder = tmp_path / "denoiser"
    assert sorted(p.name for p in folder.iterdir()) == ["best.ckpt", "last.ckpt", "step-0000007.ckpt"]
    assert steps_done(folder / "best.ckpt") == 4
