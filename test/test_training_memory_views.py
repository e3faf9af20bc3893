"""Training with what a spatial memory shows: the views are right, kept as bytes, and reach the denoiser."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_samples import MACHINE

from come_nav.core.geometry.point_rendering import fill_unseen
from come_nav.core.resources import find_resource
from come_nav.training.config import DataSettings
from come_nav.training.data.sim_bank import encode_drive, make_drive, training_camera
from come_nav.training.pretrained import fine_tuning_values, merged
from come_nav.training.run import Run
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.reprojection import RenderedView

DATA = DataSettings(worlds=1, episode_s=8.0, memory_s=24.0, memory_drift_percent=0.0, keep_images=True, branches=1)


def test_layers_survive_as_bytes() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 8, 8, generator=generator) * 2.0 - 1.0
    known = torch.rand(2, 8, 8, generator=generator) > 0.4
    inverse_depth = torch.rand(2, 8, 8, generator=generator) * 3.0
    found = RenderedView.unpacked(RenderedView(image, known, inverse_depth * known).packed())
    assert torch.equal(found.known, known)
    assert float((found.image - image)[known[:, None].expand_as(image)].abs().max()) < 0.005
    assert float((found.inverse_depth - inverse_depth * known).abs().max()) < 0.01


def test_a_drive_remembers_the_time_before_it() -> None:
    drive = make_drive(10004, 1, DATA, 4.0)
    assert len(drive.before_world_xyyaw) >= 0.3 * 24 * 4
    bank = encode_drive(drive, training_camera(64), DATA, lambda images: images[:, :, ::8, ::8], "cpu", "cpu")
    assert bank.memory is not None
    assert bank.branch_memory is not None
    assert bank.branch_memory.shape == (33, 1, 5, 64, 64)
    layer = RenderedView.unpacked(bank.memory)
    share = layer.known.flatten(1).float().mean(dim=1)
    seen = share > 0.6
    assert seen.sum() >= 4
    truth = bank.images[seen].float() / 127.5 - 1.0
    shown = fill_unseen(layer.image[seen], layer.known[seen])
    others = truth.roll(len(truth) // 2, 0)
    assert float((shown - truth).abs().mean()) < 0.5 * float((others - truth).abs().mean())


def test_without_time_before_nothing_changes() -> None:
    plain, none = make_drive(7, 0, replace(DATA, memory_s=0.0), 4.0), DataSettings(worlds=1, episode_s=8.0, branches=1)
    same = make_drive(7, 0, none, 4.0)
    assert torch.equal(plain.poses_world_xyyaw, same.poses_world_xyyaw)
    assert len(plain.before_world_xyyaw) == 0
    assert encode_drive(plain, training_camera(16), none, lambda i: i[:, :, ::2, ::2], "cpu", "cpu").memory is None


def test_training_sees_the_memory(tmp_path: Path) -> None:
    """From the shipped model: what a memory shows makes the prediction of goals better at once."""
    from come_nav.core.settings import from_mapping
    from come_nav.training.config import TrainSettings

    model = DiffusionWorldModel.load(find_resource("models", "tiny"))
    short = {
        "steps": 2,
        "batch_size": 2,
        "validate_every": 1,
        "save_every": 1,
        "warmup_steps": 1,
        "learning_rate": 1e-6,
    }
    data = {"worlds": 1, "validation_worlds": 1, "episode_s": 8.0, "memory_s": 24.0, "branches": 1}
    values = merged(fine_tuning_values(model), {"data": data, "denoiser": short})
    run = Run(from_mapping(TrainSettings, values), tmp_path, MACHINE, model)
    assert run.finish() is not None
    found = [row for path in tmp_path.rglob("metrics.csv") for row in csv.DictReader(path.open())]
    validated = [row for row in found if row.get("validation/memory_loss")]
    losses = [(float(row["validation/loss"]), float(row["validation/memory_loss"])) for row in validated]
    assert losses
    assert losses[0][1] < losses[0][0]


@pytest.mark.parametrize("field", ["memory_s", "memory_fraction", "memory_drift_percent"])
def test_ranges(field: str) -> None:
    from come_nav.core.errors import ConfigError

    with pytest.raises(ConfigError, match=rf"data\.{field}"):
        DataSettings(**{field: -1.0})
