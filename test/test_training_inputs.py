"""Training with every optional input: what is drawn, what is told, and a run that resumes bit for bit."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_samples import ALL_INPUTS, MACHINE, state

from come_nav.core.errors import ConfigError
from come_nav.core.geometry import se2, se3
from come_nav.core.settings import from_mapping, read_yaml
from come_nav.core.types import Frame
from come_nav.experts.cdit import CDiT
from come_nav.memory.spatial.cloud import SpatialMemory
from come_nav.memory.spatial.remembered_views import RememberedViews
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.sensors.chain import to_uint8
from come_nav.sim.sensors.mounting import MountedCamera
from come_nav.sim.worlds import generate_world
from come_nav.training.checkpoints import newest_checkpoint, steps_done
from come_nav.training.config import TrainSettings
from come_nav.training.data.goals import GoalSettings
from come_nav.training.data.memory_views import PastDrive, fill_memory
from come_nav.training.data.sensing import DriveSenses, known_depth, renderer_of
from come_nav.training.data.sim_bank import encode_drive, make_drive, random_free_poses, training_camera
from come_nav.training.input_dropout import InputDropout
from come_nav.training.run import Run
from come_nav.training.tasks.denoiser import DenoiserTask
from come_nav.training.tasks.inputs import drawn_inputs
from come_nav.world_model.depth import DepthEstimator, DepthSettings
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.reprojection import ESTIMATED_TRUST, RenderedView

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIG, DATA, SIZE = ALL_INPUTS, ALL_INPUTS.data, ALL_INPUTS.image_size


def run_until(folder: Path, steps: int | None = None, monkeypatch: pytest.MonkeyPatch | None = None) -> Path | None:
    """Run, or run until the denoiser's step ``steps`` kills it."""
    if steps is None or monkeypatch is None:
        return Run(CONFIG, folder, MACHINE).finish()
    original = DenoiserTask.training_step

    def dies(self, batch, batch_idx):
        if self.global_step == steps:
            raise RuntimeError("killed")
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(DenoiserTask, "training_step", dies)
        with pytest.raises(RuntimeError, match="killed"):
            Run(CONFIG, folder, MACHINE).finish()
    return None


@pytest.mark.slow
def test_a_killed_run_with_every_input_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Endless drives with their own cameras, memories that drift, older frames: equal bit for bit after a kill."""
    monkeypatch.setattr("come_nav.training.run.VALIDATION_BATCHES", 1)
    whole = run_until(tmp_path / "whole")
    run_until(tmp_path / "parts", 3, monkeypatch)
    early = Run(CONFIG, tmp_path / "parts", MACHINE).export_newest()
    assert DiffusionWorldModel.load(early).base.model.settings == CONFIG.denoiser_model
    card = (early / "card.md").read_text(encoding="utf-8")
    taken = steps_done(newest_checkpoint(tmp_path / "parts" / "denoiser"))
    assert 0 < taken < CONFIG.denoiser.steps
    assert f"| training | {taken} steps," in card, "as many as there were, not as many as there will be"
    elsewhere = replace(CONFIG, data=replace(DATA, workers=1))  # another machine may make drives in other processes
    resumed = Run(elsewhere, tmp_path / "parts", MACHINE).finish()
    assert whole is not None
    assert resumed is not None
    one, two = (DiffusionWorldModel.load(path) for path in (whole, resumed))
    first, second = state(one), state(two)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    logged = [
        row for path in (tmp_path / "whole").rglob("denoiser/**/metrics.csv") for row in csv.DictReader(path.open())
    ]
    measured = {name for row in logged for name, value in row.items() if name.startswith("validation") and value}
    assert measured == {f"validation/{name}" for name in ("loss", "null_loss", "longer_loss", "memory_loss")}
    _imagines_with_all_memories(one)


def _imagines_with_all_memories(model: DiffusionWorldModel) -> None:
    """The exported model predicts with a longer past, a spatial memory, and without."""
    images, poses = torch.rand(4, 3, SIZE, SIZE) * 2.0 - 1.0, torch.zeros(4, 3)
    older = (torch.rand(6, 3, SIZE, SIZE) * 2.0 - 1.0, torch.zeros(6, 3), None, None)
    world = generate_world(0)
    camera = MountedCamera(training_camera(SIZE))
    past = random_free_poses(world, 4, torch.Generator().manual_seed(0))
    memory = fill_memory(renderer_of(world, camera, "cpu"), PastDrive(past, se2.relative(past[:1], past)), "cpu")
    source = RememberedViews(memory, camera.intrinsics, camera.T_base_camera)
    full = model.with_memory(source).composed({"base": 1.0, "short_term": 1.0, "spatial": 1.0})
    context = full.context_from_images(images, poses, older=older, absolute_pose_xyyaw=torch.zeros(3))
    assert context.older is not None
    targets = torch.tensor([[0.2, 0.0, 0.1], [0.0, 0.0, 0.5]])
    for own in (model, full):
        latents = own.predict(context, targets, torch.ones(2), torch.Generator().manual_seed(0))
        assert torch.isfinite(latents).all()
    route = torch.stack([targets, 2.0 * targets], 1)
    assert torch.isfinite(full.rollout(context, route, torch.Generator().manual_seed(0))).all()


def test_inputs_are_left_out_as_often_as_stated() -> None:
    generator = torch.Generator().manual_seed(0)
    dropout = InputDropout(
        context=0.2, context_view=0.1, longer_view=0.3, memory_view=0.6, camera=0.4, absolute_pose=0.7, older=0.5,
        older_batches=0.25,
    )  # fmt: skip
    nothing = torch.rand(4000, generator=generator) < 0.15
    told = drawn_inputs(4000, 2, 29, dropout, nothing, generator)
    rest = ~nothing
    assert not told.shown.unflatten(0, (4000, 2))[nothing].any()
    assert told.no_context[nothing].all()
    shown = told.shown.unflatten(0, (4000, 2))[rest].float().mean((0, 1))
    torch.testing.assert_close(shown, torch.tensor([0.9, 0.7, 0.4]), atol=0.02, rtol=0.0)
    shares = [told.no_context[rest], ~told.older_told[rest], ~told.camera, ~told.absolute_pose]
    found = torch.stack([share.float().mean() for share in shares])
    torch.testing.assert_close(found, torch.tensor([0.2, 0.5, 0.4, 0.7]), atol=0.03, rtol=0.0)
    older = torch.tensor([drawn_inputs(1, 1, 29, dropout, nothing[:1], generator).older for _ in range(2000)])
    assert float((older == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert (int(older[older > 0].min()), int(older.max())) == (1, 29)


def test_a_share_of_processes_is_told_its_rows_of_the_one_draw() -> None:
    nothing = torch.zeros(6, dtype=torch.bool)
    whole = drawn_inputs(6, 2, 9, InputDropout(), nothing, torch.Generator().manual_seed(4))
    part = whole.rows(slice(2, 4), 2)
    assert torch.equal(part.shown, whole.shown[4:8])
    assert torch.equal(part.camera, whole.camera[2:4])
    assert part.older == whole.older


@pytest.fixture(scope="module")
def bank():
    """One drive with a depth camera of its own."""
    drive = make_drive(5, 0, replace(DATA, keep_images=True, keep_depth=True, measured_fraction=1.0), 4.0)
    senses = DriveSenses(lambda images, camera: torch.full_like(images[:, 0], 2.0), facts=True)
    data = replace(DATA, keep_images=True, keep_depth=True)
    return drive, encode_drive(drive, training_camera(SIZE), data, lambda i: i[:, :, ::8, ::8], "cpu", "cpu", senses)


def test_windows_hold_the_frames_before_the_context_and_the_drives_camera(bank) -> None:
    drive, frames = bank
    sampling = GoalSettings(context_frames=4, goals_per_context=2, older_frames=9)
    batch = frames.sample(sampling, 16, torch.Generator().manual_seed(0))
    newest = frames.windows(torch.tensor([20, 5]), sampling, torch.rand(2, 2, 2))
    past = newest.older
    assert torch.equal(past.latents[0], frames.latents[8:17])
    assert past.known.tolist() == [[True] * 9, [False] * 7 + [True] * 2]
    assert past.frame_offsets[0].tolist() == list(range(-12, -3))
    torch.testing.assert_close(past.poses_xyyaw[0], se2.relative(frames.poses_xyyaw[20], frames.poses_xyyaw[8:17]))
    assert torch.equal(past.images[0], frames.images[8:17, :, ::2, ::2])
    own = drive.camera
    assert batch.T_base_camera.shape == (16, 4, 4, 4)
    torch.testing.assert_close(
        batch.T_base_camera[0, 0].double(), torch.from_numpy(own.T_base_camera), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(batch.camera[0, 0], torch.tensor(own.intrinsics.fx / SIZE, dtype=torch.float32))


def test_views_of_a_memory_tell_age_and_trust(bank) -> None:
    drive, frames = bank
    layer = RenderedView.unpacked(frames.memory)
    age_s = layer.facts[:, 0][layer.known & (layer.facts[:, 0] > 0)]
    longest_s = (len(drive.before_world_xyyaw) + len(frames)) / 4.0
    assert len(age_s) > 0
    assert 0.0 < float(age_s.min()) <= float(age_s.max()) < 1.04 * longest_s
    assert set(layer.facts[:, 1][layer.known].unique().tolist()) == {1.0}
    assert ESTIMATED_TRUST < 1.0


@pytest.mark.parametrize("clock_s", [0.0, 1_790_000_040.0, 1_790_000_070.0])  # whole float32 steps lie 128 s apart
def test_ages_are_those_of_the_last_look(clock_s: float) -> None:
    """Looked at from one place at 0 s and from another room's corner at 10 s: seen again at 12 s, 12 s and 2 s old."""
    world, camera = generate_world(8), MountedCamera(training_camera(SIZE))
    poses = random_free_poses(world, 2, torch.Generator().manual_seed(1))
    memory, renderer = SpatialMemory(), renderer_of(world, camera, "cpu")
    for pose, stamp_s in zip(poses, (clock_s, clock_s + 10.0), strict=True):
        images, depth = renderer.render(pose[None])
        frame = Frame(stamp_s, to_uint8(images)[0], depth[0].numpy(), camera.intrinsics, camera.T_base_camera)
        memory.observe(frame, se3.transform_from_xyyaw(pose.double().numpy()))
    source = RememberedViews(memory, camera.intrinsics, camera.T_base_camera)
    _, known, inverse_depth = source.views(poses, SIZE)
    ages = source.ages_s(poses, inverse_depth, now_s=torch.full((2,), clock_s + 12.0, dtype=torch.float64))
    for own, expected in zip((ages[0][known[0]], ages[1][known[1]]), (12.0, 2.0), strict=True):
        told = own[own > 0]
        assert len(told) > 0.7 * len(own)
        assert float(told.median()) == expected
    first, second = source.ages_s(poses, inverse_depth)  # from the newest look on
    assert float(first[known[0]].median()) == 10.0 and float(second[known[1]].median()) == 0.0


def test_depth_is_measured_where_it_can_be_and_estimated_to_scale_elsewhere() -> None:
    camera = MountedCamera(training_camera(8))
    truth = torch.full((1, 8, 8), 3.0)
    reading = truth.clone()
    reading[0, 2:4] = torch.nan
    senses = DriveSenses(lambda images, own: torch.full_like(images[:, 0], 1.5))
    images = torch.zeros(1, 3, 8, 8)
    depth_m, measured = known_depth(images, reading, True, camera, senses)
    assert torch.equal(depth_m, truth)  # the estimate is half as far: scaled by two between the readings
    assert measured.sum() == 48
    depth_m, measured = known_depth(images, reading, False, camera, senses)
    assert torch.equal(depth_m, torch.full_like(truth, 1.5))
    assert not measured.any()


def test_estimated_depth_scales_with_the_focal_length() -> None:
    """The same image through a camera of twice the focal length, its rays in mind, is twice as far (blind network)."""
    torch.manual_seed(0)
    estimator = DepthEstimator(DepthSettings(widths=(8, 8), canonical_focal=0.5))
    images = torch.rand(2, 3, 16, 16)
    cameras = torch.tensor([[0.5, 0.5, 0.5, 0.5], [1.0, 1.0, 0.5, 0.5]])
    untrained = estimator.depth_m(images, cameras)  # its head is zero: the same canonical answer everywhere
    torch.testing.assert_close(untrained[1], 2.0 * untrained[0])
    torch.testing.assert_close(estimator.depth_m(images[:1]), untrained[:1])
    unknown = torch.full((1, 4), torch.nan)
    torch.testing.assert_close(estimator.depth_m(images[:1], unknown), untrained[:1])
    with torch.no_grad():
        for parameter in estimator.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    same = estimator.depth_m(images[:1].expand(2, -1, -1, -1), cameras)
    assert float((same[1] / same[0] - 2.0).abs().max()) > 1e-4  # and a trained one sees that the rays differ


def test_an_estimator_of_one_camera_takes_no_notice_of_others() -> None:
    torch.manual_seed(0)
    estimator = DepthEstimator(DepthSettings(widths=(8, 8)))
    with torch.no_grad():
        for parameter in estimator.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(estimator(images), estimator(images, torch.tensor([[2.0, 2.0, 0.5, 0.5]])))


def test_the_configuration_of_small_fits_its_size() -> None:
    config = from_mapping(TrainSettings, read_yaml(REPOSITORY / "config" / "train_small.yaml"))
    with torch.device("meta"):
        network, depth = CDiT.from_settings(config.denoiser_model), DepthEstimator(config.depth_model)
    count = sum(parameter.numel() for module in (network, depth) for parameter in module.parameters())
    assert 2 * count < 40e6  # bytes in float16
    assert config.denoiser_model.context_size + config.denoiser_model.older_frames == 33


def test_data_and_network_must_go_together() -> None:
    with pytest.raises(ConfigError, match=r"data\.cameras needs denoiser_model\.view_groups 3"):
        replace(CONFIG, denoiser_model=replace(CONFIG.denoiser_model, view_groups=0, extra_channels=6))
    with pytest.raises(ConfigError, match="must be image_size 32, got 64"):
        replace(CONFIG, data=replace(DATA, camera_px=64))
    with pytest.raises(ConfigError, match="view_groups must be 0 or 3, got 2"):
        replace(CONFIG, denoiser_model=replace(CONFIG.denoiser_model, view_groups=2))


def test_raycasters_share_their_worlds() -> None:
    raycaster = Raycaster([generate_world(1)], training_camera(8))
    other = raycaster.through(MountedCamera(training_camera(16), 1.0))
    assert other.worlds is raycaster.worlds
    assert raycaster.render(torch.tensor([[1.0, 1.0, 0.0]]))[0].shape[-1] == 8
    with pytest.raises(ConfigError, match=r"camera_height_m must be in \(0"):
        raycaster.through(MountedCamera(training_camera(16), 9.0))
