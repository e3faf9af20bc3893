"""The training run end to end at toy size: exact resume, refusals, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from torch.optim.swa_utils import AveragedModel
from training_samples import CONFIG, MACHINE, STAGE, state

from come_nav.core.errors import CheckpointError, ComeNavError, ConfigError
from come_nav.core.resources import find_resource
from come_nav.training.callbacks import AverageWeights
from come_nav.training.data.bank import GoalSettings, LatentBank, step_generator
from come_nav.training.run import Run
from come_nav.training.run_parts import new_estimator
from come_nav.training.tasks.autoencoder import AutoencoderTask
from come_nav.training.tasks.denoiser import DenoiserTask
from come_nav.world_model.autoencoders.autoencoder import ImageAutoencoder
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.sampling.schedule import NoiseSchedule


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DiffusionWorldModel]:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("run")
    exported = Run(CONFIG, folder, MACHINE).finish()
    assert exported is not None
    return folder, DiffusionWorldModel.load(exported)


def test_run_exports_a_model_that_imagines(finished: tuple[Path, DiffusionWorldModel]) -> None:
    folder, model = finished
    images = torch.zeros(4, 3, 64, 64)
    context = model.context_from_images(images, torch.zeros(4, 3))
    latents = model.predict(context, torch.zeros(2, 3), torch.ones(2), torch.Generator().manual_seed(0))
    assert latents.shape == (2, 4, 8, 8)
    assert torch.isfinite(latents).all()
    assert list((folder / "logs").rglob("metrics.csv")), "the CSV log is missing"


def test_a_killed_run_resumes_to_the_same_weights(
    finished: tuple[Path, DiffusionWorldModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both stages die in the middle, after a checkpoint; the same command then ends with the same weights."""
    for task in (AutoencoderTask, DenoiserTask):
        original = task.training_step

        def dies_at_step_5(self, batch, batch_idx, original=original):  # type: ignore[no-untyped-def]
            if self.global_step == 5:
                raise RuntimeError("killed")
            return original(self, batch, batch_idx)

        with monkeypatch.context() as patch:
            patch.setattr(task, "training_step", dies_at_step_5)
            with pytest.raises(RuntimeError, match="killed"):
                Run(CONFIG, tmp_path, MACHINE).finish()
    exported = Run(CONFIG, tmp_path, MACHINE).finish()
    assert exported is not None
    resumed, whole = state(DiffusionWorldModel.load(exported)), state(finished[1])
    assert resumed.keys() == whole.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


def test_a_time_limit_stops_and_keeps_the_state(tmp_path: Path) -> None:
    assert Run(CONFIG, tmp_path, replace(MACHINE, max_minutes=1e-6)).finish() is None
    assert (tmp_path / "autoencoder" / "last.ckpt").is_file()


def test_a_folder_with_another_configuration_is_refused(finished: tuple[Path, DiffusionWorldModel]) -> None:
    with pytest.raises(ConfigError, match="another configuration"):
        Run(replace(CONFIG, seed=1), finished[0], MACHINE)


def test_a_run_of_before_a_setting_came_to_be_goes_on_with_its_default(tmp_path: Path) -> None:
    Run(CONFIG, tmp_path, MACHINE)
    path = tmp_path / "config.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    del values["denoiser_from"], values["data"]["time_offset_s"]
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    Run(CONFIG, tmp_path, MACHINE)
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    with pytest.raises(ConfigError, match="another configuration"):
        Run(replace(CONFIG, denoiser_from="models/tiny"), tmp_path, MACHINE)


def test_a_run_goes_on_with_the_model_that_it_began_with(
    finished: tuple[Path, DiffusionWorldModel], tmp_path: Path
) -> None:
    one, other = (DiffusionWorldModel.load(finished[0] / "toy") for _ in range(2))
    Run(CONFIG, tmp_path, MACHINE, one)
    Run(CONFIG, tmp_path, MACHINE, DiffusionWorldModel.load(finished[0] / "toy"))
    with torch.no_grad():
        next(other.autoencoder.parameters()).mul_(1.3)
    for wrong in (other, None):
        with pytest.raises(ConfigError, match="began with another model"):
            Run(CONFIG, tmp_path, MACHINE, wrong)


def test_what_fine_tuning_would_not_follow_is_refused(
    finished: tuple[Path, DiffusionWorldModel], tmp_path: Path
) -> None:
    model = DiffusionWorldModel.load(finished[0] / "toy")
    deeper = replace(CONFIG.denoiser_model, depth=CONFIG.denoiser_model.depth + 1)
    asked = replace(CONFIG, denoiser_model=deeper, prediction="eps", denoiser_from="models/tiny", scale_m=9.0)
    wanted = r"denoiser_model\.depth, prediction, denoiser_from, scale_m: not those of --init"
    with pytest.raises(ConfigError, match=wanted):
        Run(asked, tmp_path, MACHINE, model)


def test_an_autoencoder_is_exported_as_it_was_judged(tmp_path: Path) -> None:
    """A scaling factor in the configuration is that of a given autoencoder; one that is trained gets its own."""
    scaled = replace(CONFIG, autoencoder_model=replace(CONFIG.autoencoder_model, scaling_factor=0.18215))
    plain, other = (
        Run(config, tmp_path / name, MACHINE).train_autoencoder() for name, config in (("a", CONFIG), ("b", scaled))
    )
    images = torch.rand(2, 3, CONFIG.image_size, CONFIG.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        both = [own.eval().cpu() for own in (plain, other)]
        torch.testing.assert_close(*(own.decode(own.encode(images)) for own in both), atol=1e-4, rtol=1e-4)


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "autoencoder").mkdir()
    (tmp_path / "autoencoder" / "last.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match=r"last\.ckpt: cannot be resumed from"):
        Run(CONFIG, tmp_path, MACHINE).finish()


def test_a_loss_that_is_not_finite_ends_the_run_in_one_line(
    finished: tuple[Path, DiffusionWorldModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nan_loss(self: DenoiserTask, *unused: object) -> torch.Tensor:
        return next(self.parameters()).sum() * float("nan")

    monkeypatch.setattr(DenoiserTask, "diffusion_loss", nan_loss)
    run = Run(CONFIG, tmp_path, MACHINE, init=DiffusionWorldModel.load(finished[0] / "toy"))
    with pytest.raises(ComeNavError, match="training loss is nan"):
        run.finish()


def test_fine_tuning_starts_from_the_given_weights(finished: tuple[Path, DiffusionWorldModel], tmp_path: Path) -> None:
    config = replace(CONFIG, denoiser=replace(STAGE, steps=1, learning_rate=1e-12))
    start = DiffusionWorldModel.load(finished[0] / "toy")
    start.tuned = {"navigation": {"lora": {"rank": 8}}}
    exported = Run(config, tmp_path, MACHINE, init=start).finish()
    assert DiffusionWorldModel.load(exported).tuned == start.tuned
    assert exported is not None
    tuned, initial = state(DiffusionWorldModel.load(exported)), state(finished[1])
    for name, tensor in initial.items():
        torch.testing.assert_close(tuned[name], tensor, atol=2e-3, rtol=1e-3)


def test_the_denoiser_learns_a_toy_world() -> None:
    """Goals equal the newest context frame: the loss must fall well below that of ignoring the context."""
    generator = torch.Generator().manual_seed(0)
    frames = 64
    bank = LatentBank(
        latents=torch.randn(frames, 1, 8, 8, generator=generator)[:, :, :1, :1].expand(-1, 4, 8, 8).half(),
        poses_xyyaw=torch.zeros(frames, 3),
        first=torch.arange(frames) // 8 * 8,
        last=torch.arange(frames) // 8 * 8 + 7,
        branch_latents=torch.zeros(frames, 0, 4, 8, 8).half(),
        branch_actions_xyyaw=torch.zeros(frames, 0, 3),
        branch_rel_frames=torch.zeros(frames, 0, dtype=torch.int64),
    )
    bank.latents = bank.latents[bank.first]  # one value per drive: the context tells the goal exactly
    run_free = CONFIG.denoiser_model
    from come_nav.experts.base import BaseExpert
    from come_nav.experts.cdit import CDiT
    from come_nav.experts.normalizer import Normalizer
    from come_nav.training.run_parts import seeded_layers

    schedule = NoiseSchedule.linear()
    with seeded_layers(0):
        expert = BaseExpert(CDiT.from_settings(run_free), Normalizer(), schedule, "v")
    task = DenoiserTask(expert, schedule, STAGE, 0.1, 0)
    optimiser = torch.optim.AdamW(task.parameters(), lr=3e-3)
    losses = []
    for step in range(150):
        batch = bank.sample(GoalSettings(branch_fraction=0.0), 16, step_generator(0, 0, step))
        loss = task.diffusion_loss(batch, step_generator(0, 1, step), 0.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-20:]) / 20 < 0.35 * sum(losses[:5]) / 5


@pytest.mark.parametrize("decay", [0.5, 0.998])
def test_averaged_weights_begin_short(decay: float) -> None:
    """A weight that jumps from 0 to 1 is averaged by the decays 2/11, 3/12, ... until the wanted one is reached."""
    averaging, layer = AverageWeights(decay), torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(layer.weight)
    averaged = AveragedModel(layer, **averaging._kwargs)
    averaged.update_parameters(layer)
    torch.nn.init.ones_(layer.weight)
    expected = 0.0
    for steps in range(1, 30):
        averaged.update_parameters(layer)
        own = min(decay, (1 + steps) / (10 + steps))
        expected = own * expected + (1.0 - own)
        assert float(averaged.module.weight.detach()) == pytest.approx(expected, rel=1e-5)
    assert averaging.state_key == "EMAWeightAveraging"


def test_a_depth_estimator_is_taken_over_and_not_trained(tmp_path: Path) -> None:
    small = DiffusionWorldModel.load(find_resource("models", "small")).depth
    assert small is not None
    sees = replace(CONFIG.denoiser_model, extra_channels=CONFIG.autoencoder_model.latent_channels + 2)
    source = str(find_resource("models", "small"))
    asked = replace(CONFIG, denoiser_model=sees, depth_model=small.settings, depth_from=source)
    run = Run(asked, tmp_path, MACHINE)
    taken = run.train_depth(ImageAutoencoder(CONFIG.autoencoder_model))
    assert taken is not None
    assert not (tmp_path / "depth").exists()
    for name, own in taken.state_dict().items():
        torch.testing.assert_close(own, small.state_dict()[name])
    other = replace(asked, depth_model=replace(small.settings, widths=(8, 8)))
    with pytest.raises(ConfigError, match=r"depth_from .*: that model estimates depth by a network of another"):
        new_estimator(other, None)
