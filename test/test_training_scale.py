"""Training on several processes is training on one: shares of one draw, two-process DDP, FSDP's construction."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from lightning_utilities.core.rank_zero import rank_zero_only
from training_samples import ALL_INPUTS, CONFIG, MACHINE, state

from come_nav.core.errors import ConfigError, StorageError
from come_nav.core.files import one_writer
from come_nav.core.settings import from_mapping, read_yaml, to_mapping
from come_nav.training.config import OptimiserSettings, TrainSettings
from come_nav.training.data.bank import WindowBatch
from come_nav.training.data.sharding import row_noise, shard
from come_nav.training.machine import Machine, make_trainer
from come_nav.training.run import Run
from come_nav.training.tasks.denoiser import DenoiserTask
from come_nav.training.tasks.optimisation import adamw_with_cosine
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.sampling.schedule import NoiseSchedule

ROOT = Path(__file__).resolve().parents[1]
# Sums of float32 gradients in another order, through Adam's division by their size: measured 3e-5 after 8 steps of rate
# 1e-3 each (autoencoder).
ROUND_OFF = 2e-4


def test_shares_are_equal_and_make_up_the_batch() -> None:
    rows = torch.arange(12)
    assert torch.cat([rows[shard(12, rank, 3)] for rank in range(3)]).equal(rows)
    with pytest.raises(ConfigError, match="batch_size 10 is the total of all processes: make it a multiple of 4"):
        shard(10, 0, 4)


def test_noise_of_a_share_is_that_of_the_whole_batch() -> None:
    def draw(rows: slice) -> torch.Tensor:
        return row_noise(64, (2, 3, 4, 4), torch.Generator().manual_seed(3), rows)

    whole = draw(slice(None))
    assert torch.cat([draw(shard(64, rank, 4)) for rank in range(4)]).equal(whole)
    assert abs(float(whole.mean())) < 0.05
    assert abs(float(whole.std()) - 1.0) < 0.05
    correlation = torch.corrcoef(whole.flatten(1))
    assert float((correlation - torch.eye(64)).abs().max()) < 0.5, "rows must be independent draws"


def test_losses_of_two_shares_have_the_mean_of_the_whole_batch() -> None:
    """Noise, levels and dropout are shared out with the windows: the mean of the two losses is the one loss."""
    from come_nav.experts.base import BaseExpert
    from come_nav.experts.cdit import CDiT
    from come_nav.experts.normalizer import Normalizer

    generator = torch.Generator().manual_seed(0)
    schedule = NoiseSchedule.linear()
    network = CDiT.from_settings(CONFIG.denoiser_model)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05, generator=generator)
    task = DenoiserTask(BaseExpert(network, Normalizer(), schedule, "v"), schedule, CONFIG.denoiser, 0.5, 0)
    batch = WindowBatch(
        torch.randn(8, 4, 4, 8, 8, generator=generator),
        torch.randn(8, 4, 3, generator=generator),
        torch.arange(-3.0, 1.0).expand(8, 4),
        torch.randn(8, 2, 4, 8, 8, generator=generator),
        torch.randn(8, 2, 3, generator=generator),
        torch.ones(8, 2),
    )

    def loss(rank: int, count: int) -> float:
        rows = shard(8, rank, count)
        part = WindowBatch(*(getattr(batch, name)[rows] for name in list(batch.__dataclass_fields__)[:6]))
        return float(task.diffusion_loss(part, torch.Generator().manual_seed(1), 0.5, rank, count))

    with torch.no_grad():
        assert (loss(0, 2) + loss(1, 2)) / 2 == pytest.approx(loss(0, 1), rel=1e-5)
        assert loss(0, 2) != pytest.approx(loss(1, 2), rel=1e-3)


def test_two_processes_train_save_and_evaluate_as_one(tmp_path: Path) -> None:
    """The documented command: each stage gives the weights and figures that one process gives from the same start."""
    run_with_torchrun(tmp_path)
    assert Run(CONFIG, tmp_path / "one", MACHINE).train_autoencoder() is not None
    compare(tmp_path, "autoencoder")
    shutil.copytree(tmp_path / "two", tmp_path / "one", dirs_exist_ok=True, ignore=left_out)  # go on from there alone
    assert Run(CONFIG, tmp_path / "one", MACHINE).finish() is not None
    compare(tmp_path, "denoiser")
    checkpoints = sorted(path.name for path in (tmp_path / "two" / "denoiser").iterdir())
    assert checkpoints == ["best.ckpt", "last.ckpt", "step-0000006.ckpt", "step-0000008.ckpt"]
    assert len(list((tmp_path / "two" / "logs" / "denoiser").iterdir())) == 1, "only one process logs"
    model = DiffusionWorldModel.load(tmp_path / "two" / "toy")
    assert all(torch.isfinite(tensor).all() for tensor in state(model).values())


def test_devices_of_one_machine_train_every_input_as_one_process(tmp_path: Path) -> None:
    """Lightning starts the second process; steps whose batch has no older frames leave weights without a gradient."""
    run_in_two_processes(tmp_path, ALL_INPUTS, [sys.executable], "--devices", "2")
    shutil.copytree(tmp_path / "two", tmp_path / "one", ignore=left_out)
    assert Run(ALL_INPUTS, tmp_path / "one", MACHINE).finish() is not None
    compare(tmp_path, "denoiser")


def run_with_torchrun(folder: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run_in_two_processes(folder, CONFIG, command)


def run_in_two_processes(folder: Path, config: TrainSettings, command: list[str], *flags: str) -> None:
    """Train to the end in the folder "two"; ``command`` runs a Python module."""
    (folder / "toy.yaml").write_text(yaml.safe_dump(to_mapping(config)), encoding="utf-8")
    training = ["-m", "come_nav", "train", "--config", str(folder / "toy.yaml"), "--out", str(folder / "two")]
    done = subprocess.run(
        [*command, *training, "--accelerator", "cpu", "--no-progress", *flags],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == [str(folder / "two" / "toy")], "one process tells where the model is"


def left_out(folder: str, names: list[str]) -> list[str]:
    return ["denoiser", "toy", "logs", "samples", "tensorboard"] if Path(folder).name == "two" else []


def compare(folder: Path, stage: str) -> None:
    one, two = (torch.load(folder / name / stage / "last.ckpt", weights_only=True) for name in ("one", "two"))
    for weights in ("current_model_state", "state_dict"):  # averages, which follow the first steps, differ as those do
        for key, tensor in one[weights].items():
            torch.testing.assert_close(two[weights][key], tensor, atol=ROUND_OFF, rtol=0)
    figures = [last_validation(folder / name, stage) for name in ("one", "two")]
    assert figures[1] == pytest.approx(figures[0], rel=1e-4)


def last_validation(folder: Path, stage: str) -> float:
    """Return the last logged value of the metric that the stage is validated by."""
    lines = (folder / "logs" / stage / "version_0" / "metrics.csv").read_text(encoding="utf-8").splitlines()
    column = next(i for i, name in enumerate(lines[0].split(",")) if name.startswith("validation/"))
    return float([cells[column] for cells in (line.split(",") for line in lines[1:]) if cells[column]][-1])


def test_fsdp_wraps_the_blocks_and_saves_whole_checkpoints() -> None:
    from pytorch_lightning.strategies import FSDPStrategy

    from come_nav.experts.layers import CDiTBlock

    strategy = replace(MACHINE, strategy="fsdp").lightning_strategy()
    assert isinstance(strategy, FSDPStrategy)
    assert strategy.kwargs["auto_wrap_policy"]._module_classes == {CDiTBlock}
    assert strategy._state_dict_type == "full"
    assert replace(MACHINE, strategy="ddp").lightning_strategy() == "ddp"


def test_devices_that_are_not_there_are_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match="--accelerator abacus") as caught:
        Machine(accelerator="abacus").launch()
    assert "\n" not in str(caught.value)


def test_devices_that_the_launcher_did_not_start_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "NTASKS": "8",
        "JOB_NAME": "train",
        "NTASKS_PER_NODE": "8",
        "NODEID": "0",
        "PROCID": "0",
    }.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURM_LOCALID", "0")
    with pytest.raises(ConfigError, match="--devices 2") as caught:
        Machine(accelerator="cpu", devices=2).launch()
    assert "\n" not in str(caught.value)


def test_torchrun_inside_a_job_counts_its_own_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"NTASKS": "1", "JOB_NAME": "train", "PROCID": "0", "LOCALID": "0", "NNODES": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    torchrun = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
    for name, value in {**torchrun, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rank_zero_only, "rank", 0)  # of this process again when the test is over
    machine = replace(MACHINE, devices=2, strategy="ddp")
    trainer = make_trainer(machine, CONFIG.denoiser, tmp_path, "denoiser", [], 0)
    assert (trainer.global_rank, trainer.world_size, trainer.is_global_zero) == (1, 2, False)


def test_one_training_at_a_time_writes_a_folder(tmp_path: Path) -> None:
    run = Run(CONFIG, tmp_path, MACHINE)
    refused = pytest.raises(StorageError, match="another training is writing")
    with one_writer(tmp_path / ".lock", StorageError("busy")), refused:
        run.finish()
    assert not list((tmp_path / "autoencoder").glob("*.ckpt"))


def test_stages_share_the_time_of_a_slice() -> None:
    machine = Machine(max_minutes=2.0)
    assert machine.left is not None
    assert 100.0 < machine.left.total_seconds() <= 120.0
    late = replace(machine, began_s=machine.began_s - 90.0)
    assert late.left is not None
    assert 10.0 < late.left.total_seconds() <= 30.0
    over = replace(machine, began_s=machine.began_s - 130.0)
    assert over.left is not None
    assert 0.0 < over.left.total_seconds() < 0.01
    assert Machine().left is None


def test_the_configuration_of_nwm_size_is_accepted() -> None:
    config = from_mapping(TrainSettings, read_yaml(ROOT / "config" / "train_xl.yaml"))
    network = config.denoiser_model
    assert (network.depth, network.hidden_size, network.num_heads, network.patch_size) == (28, 1152, 16, 2)
    assert (config.image_size, network.input_size, config.data.max_offset_frames) == (224, 28, 64)
    assert config.denoiser.batch_size * config.data.goals_per_context == 4096
    assert config.autoencoder_from == "stabilityai/sd-vae-ft-ema"


def test_a_constant_rate_stays_after_the_warm_up() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    rates = {}
    for decay in ("constant", "cosine"):
        parts = adamw_with_cosine([weight], OptimiserSettings(steps=10, warmup_steps=2, decay=decay, learning_rate=1.0))
        factor = parts["lr_scheduler"]["scheduler"].lr_lambdas[0]
        rates[decay] = [factor(step) for step in range(11)]
    assert rates["constant"] == [0.5] + [1.0] * 10
    assert rates["cosine"][-1] == pytest.approx(0.0)
