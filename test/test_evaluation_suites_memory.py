"""Memory suites: memories are filled by replay through the robot's stack; rows say what they are made of."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from data_samples import SampleRecording
from model_samples import small_model

from come_nav.cli.output import format_table
from come_nav.core.errors import ConfigError, DataError
from come_nav.core.geometry import se2
from come_nav.core.resources import find_resource
from come_nav.core.types import CameraIntrinsics
from come_nav.evaluation.protocols.memory_windows import MemoryDrive, MemoryWindow
from come_nav.evaluation.protocols.protocol import ProtocolSettings, make_window, segments_of_recording
from come_nav.evaluation.protocols.quality import read_batch
from come_nav.evaluation.reports.composition_tables import marked_lines, marks_of, pass_lines
from come_nav.evaluation.suites.inputs import Input
from come_nav.evaluation.suites.memory.compositions import BLENDS, TITLES, CompositionWeights, find_weights
from come_nav.evaluation.suites.memory.corrected import CorrectedRecording
from come_nav.evaluation.suites.memory.drive_memories import DriveMemories, MemoryCache, experts_of
from come_nav.evaluation.suites.memory.drives import MemoryInput
from come_nav.evaluation.suites.memory.memory_network import memory_network_alone
from come_nav.evaluation.suites.memory.optional_rows import optional_rows, retrieved_context
from come_nav.evaluation.suites.memory.passes import passes_of_rows
from come_nav.evaluation.suites.memory.planning import GeometryImaginer, NearestImaginer
from come_nav.evaluation.suites.memory.rgb_only import RgbOnlyRecording, without_depth
from come_nav.evaluation.suites.memory.rows import BatchContexts, available_rows, recall_rows
from come_nav.evaluation.suites.quality_rows import images_of
from come_nav.experts.lora import adapted, adapter_metadata
from come_nav.experts.lora_settings import LoraSettings
from come_nav.memory.episodic.memory import EpisodicMemory, EpisodicSettings
from come_nav.memory.retrieval import FrameRetrieval, Retrieved
from come_nav.memory.spatial.building import remember
from come_nav.memory.spatial.cloud import SpatialMemory
from come_nav.memory.spatial.remembered_views import RememberedViews
from come_nav.navigation.settings import NavigationSettings
from come_nav.planning.settings import PlannerSettings
from come_nav.sim.episodes import EpisodeRecording, simulate_episode
from come_nav.sim.raycaster import Raycaster
from come_nav.sim.worlds import generate_world
from come_nav.world_model.composition import CompositionSettings
from come_nav.world_model.depth_of_frames import measured_depth
from come_nav.world_model.episode_loss import EpisodeLoss
from come_nav.world_model.inference_settings import InferenceSettings
from come_nav.world_model.model import DiffusionWorldModel
from come_nav.world_model.reprojection import RenderedView

MEMORY, OLDER = 40, 6
SETTINGS = NavigationSettings(
    device="cpu",
    planner=PlannerSettings(samples=4, initial_samples=8, iterations=1, elites=2),
    episodic=EpisodicSettings(reach=20, batch_size=2, learning_rate=1e-3, steps_per_frame=0.08),
    lora=LoraSettings(rank=2, alpha=2),
)


@pytest.fixture(scope="module")
def model() -> DiffusionWorldModel:
    loaded = DiffusionWorldModel.load(find_resource("models", "tiny"))
    loaded.inference = InferenceSettings(precision="float32")
    return loaded


@pytest.fixture(scope="module")
def drive() -> MemoryDrive:
    world = generate_world(10002)
    camera = CameraIntrinsics.from_field_of_view(64, 64, np.pi / 2)
    recording = EpisodeRecording(simulate_episode(world, "tour", 18.0, seed=2), Raycaster([world], camera), True)
    return MemoryDrive("drive", recording, recording, range(MEMORY))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def memories(drive, model, folder) -> DriveMemories:
    settings = replace(SETTINGS, experts=replace(SETTINGS.experts, older_frames=OLDER))
    return DriveMemories(drive, model, settings, folder, "tiny")


def window_of(drive: MemoryDrive, start: int = 52, steps: int = 8) -> MemoryWindow:
    window = make_window(drive.name, drive.recording, start, start + steps, ProtocolSettings(horizon_steps=steps))
    return MemoryWindow(
        window=window,
        steps=(steps,),
        targets=(start + steps,),
        rel_frames=np.array([window.rel_frames]),
        poses_xyyaw=window.driven_xyyaw[-1:],
        memory=drive.memory,
        share_visible=0.0,
        share_remembered=1.0,
        age_frames=60,
    )


def test_the_cloud_is_that_of_the_memory_phase(memories, drive, model):
    direct = SpatialMemory(SETTINGS.spatial)
    remember(drive.recording, [direct], 0, MEMORY)
    memory = memories.replay.stack.episode.spatial
    assert len(memory) == len(direct) > 0
    poses = torch.from_numpy(drive.recording.poses_xyyaw[::10]).float()
    for got, wanted in zip(memories.views.views(poses, 32), _views(direct, drive, poses), strict=True):
        torch.testing.assert_close(got.float(), wanted.float(), atol=1e-4, rtol=0)


def _views(memory, drive, poses):
    recording = drive.recording
    return RememberedViews(memory, recording.intrinsics, recording.T_base_camera).views(poses, 32)


def test_windows_leave_the_memories_as_they_are(memories, drive):
    spatial, episodic = memories.replay.stack.episode.spatial, memories.replay.stack.episode.episodic
    before = len(spatial), episodic.frames.seen
    for start in (50, 52, 55):
        stack = memories.replay.at(window_of(drive, start).window)
        assert len(stack.memory) == 4 + OLDER
    assert (len(spatial), episodic.frames.seen) == before == (len(spatial), MEMORY)


def trained_directly(drive, model):
    """Train an adapter on the memory phase without a stack: frame by frame, each beside what was remembered of it."""
    recording = drive.recording
    network = adapted(model.memory_base, SETTINGS.lora, torch.Generator().manual_seed(SETTINGS.seed))
    loss = EpisodeLoss(model)
    settings = replace(SETTINGS.episodic, context_frames=model.context_frames)
    memory = EpisodicMemory(network, loss, settings, metadata=adapter_metadata(model.memory_base, SETTINGS.lora))
    cloud = SpatialMemory(SETTINGS.spatial)
    views = RememberedViews(cloud, recording.intrinsics, recording.T_base_camera, model.images.aspect)
    for index in drive.memory:
        frame, pose = recording.frame(index), torch.from_numpy(recording.poses_xyyaw[index]).float()
        image = model.images_from_rgb([frame.rgb])
        shown = RenderedView(*views.views(pose[None], model.image_size))
        extrinsics = frame.over_footprint(recording.T_odom_base[index]).T_base_camera
        depth_m = measured_depth([frame], model.image_size, model.images.aspect)[0]
        memory.observe(model.encode(image)[0], pose, frame.stamp_s, loss.frame(image[0], shown, extrinsics, depth_m))
        cloud.observe(frame, recording.T_odom_base[index])
    memory.train_steps(memory.steps_due)
    return memory.newest.tensors


def test_the_adapter_is_that_of_the_memory_phase_and_is_found_again(memories, drive, model, folder):
    adapter = memories.replay.stack.episode.adapter
    direct = trained_directly(drive, model)
    assert adapter.metadata["steps"] == int(SETTINGS.episodic.steps_per_frame * MEMORY) == 3
    assert set(adapter.tensors) == set(direct)
    for name, tensor in direct.items():
        torch.testing.assert_close(adapter.tensors[name], tensor, atol=2e-5, rtol=1e-3)
    path, told = folder / "drive.safetensors", []
    trained_ns = path.stat().st_mtime_ns

    def progress(total, label, unit, *, leave=False):
        told.append(label)
        raise AssertionError("nothing is to be trained")

    again = DriveMemories(drive, model, memories.settings, folder, "tiny", progress=progress)
    row = CompositionWeights({}).composed_row("ltm", True)
    latents = [each.composed(experts_of(row, model, OLDER)) for each in (memories, again)]
    batch = read_batch([window_of(drive)], images_of(model))
    context = memories.replay.context(batch.windows[0].window, experts_of(row, model, OLDER))
    drawn = [
        own.predict(context, torch.zeros(1, 3), torch.ones(1), torch.Generator().manual_seed(0)) for own in latents
    ]
    torch.testing.assert_close(*drawn)
    assert path.stat().st_mtime_ns == trained_ns
    assert told == []


def test_another_cloud_needs_another_adapter(memories, drive, model, folder):
    coarse = replace(memories.settings, spatial=replace(memories.settings.spatial, voxel_m=0.2))
    other = DriveMemories(drive, model, coarse, folder, "tiny")
    assert other._adapter_key() != memories._adapter_key()
    assert DriveMemories(drive, model, memories.settings, folder, "tiny")._adapter_key() == memories._adapter_key()


def test_another_sampler_camera_or_depth_needs_another_adapter(memories, drive, model, folder):
    """Levels that are trained are those that the sampler visits; what a frame shows is what its sensors deliver."""

    def key(drive=drive, model=model, settings=memories.settings) -> str:
        return DriveMemories(drive, model, settings, folder, "tiny")._adapter_key()

    steps = copy.copy(model)
    steps.sampler = replace(model.sampler, steps=4)
    blind = replace(drive, recording=RgbOnlyRecording(drive.recording))
    estimating = replace(memories.settings, experts=replace(memories.settings.experts, estimate_depth=True))
    keys = [key(), key(model=steps), key(drive=blind), key(settings=estimating)]
    assert len(set(keys)) == 4


def test_a_drive_without_depth_or_with_other_poses_breaks_where_it_did(drive):
    recording = copy.copy(drive.recording)
    recording.segments = [(0, 5), (5, len(recording))]
    for other in (RgbOnlyRecording(recording), CorrectedRecording(recording, recording.T_odom_base)):
        assert segments_of_recording(other).tolist() == segments_of_recording(recording).tolist()
        assert len(set(segments_of_recording(other))) == 2


def test_what_cannot_be_remembered_is_no_row(drive, model, tmp_path):
    class Blind(SampleRecording):
        def __init__(self) -> None:
            super().__init__(30, with_depth=False)

    blind = MemoryDrive("blind", Blind(), Blind(), range(20))
    memories = DriveMemories(blind, model, SETTINGS, tmp_path, "tiny", long_term=False)
    with pytest.raises(DataError, match="blind: the spatial memory kept no point"):
        _ = memories.views
    with pytest.raises(DataError, match="blind: the spatial expert cannot work: nothing is remembered yet"):
        memories.composed(experts_of(CompositionWeights({}).composed_row("sltm", True), model, OLDER))


def test_a_model_without_views_still_has_the_geometry_to_compare_with(drive, tmp_path):
    plain = DiffusionWorldModel.load(small_model(tmp_path / "model"))
    memories = DriveMemories(drive, plain, SETTINGS, tmp_path, "small", long_term=False)
    assert 0.0 < float(memories.coverage(torch.from_numpy(drive.recording.poses_xyyaw[45:46]))[0]) <= 1.0
    assert available_rows(["base", "ltm", "geometry"], True, plain) == ["base", "ltm", "geometry"]
    for key in ("sltm-blend", "memory-net", "stm"):
        assert available_rows([key, "base"], False, plain) == ["base"]
        with pytest.raises(ConfigError, match=key):
            available_rows([key], True, plain)


def test_a_model_without_views_has_an_adapter_that_is_told_where_it_looks_from(drive, tmp_path):
    plain = DiffusionWorldModel.load(small_model(tmp_path / "model"))
    memories = DriveMemories(drive, plain, SETTINGS, tmp_path, "small")
    weights = CompositionWeights({"contrast": {"base+ltm": {"base": 1.0, "long_term": 0.5}}})
    rows, _ = rows_of(memories, plain, ["ltm", "base+ltm"], weights)
    assert list(rows) == ["copy the last frame", "base", "LTM", "base+LTM"]
    batch = read_batch([window_of(drive)], images_of(plain))
    images = {name: row.imagine(batch) for name, row in rows.items()}
    # the adapter is trained a little and its key begins at zero: what it is told must arrive all the same
    keyed = {name: tensor for name, tensor in memories.replay.stack.episode.adapter.tensors.items() if "pose" in name}
    assert keyed
    own = memories.replay.stack.episode.adapter.tensors
    memories.replay.stack.episode.use_adapter({**own, **{name: tensor + 0.5 for name, tensor in keyed.items()}})
    for name in ("LTM", "base+LTM"):
        assert (rows[name].imagine(batch) - images[name]).abs().mean() > 1e-4
    assert torch.equal(rows["base"].imagine(batch), images["base"])


def rows_of(memories, model, wanted, weights):
    cache = MemoryCache(lambda name: memories)
    rows, compositions = recall_rows(wanted, "on", weights, model, cache, OLDER)
    return {row.name: row for row in rows}, compositions


def test_a_pasted_image_is_a_row_of_its_own(memories, drive, model):
    weights = find_weights(None, "tiny")
    wanted = ["sltm", "sltm-blend", "all", "all-blend", "geometry", "memory-net"]
    rows, _ = rows_of(memories, model, wanted, weights)
    assert list(rows) == [
        "copy the last frame",
        "geometry only",
        "memory network without memory",
        "base",
        "SLTM",
        "SLTM, render blend",
        "all (CoME)",
        "all (CoME), render blend",
    ]
    batch = read_batch([window_of(drive, 50), window_of(drive, 54)], images_of(model))
    images = {name: row.imagine(batch) for name, row in rows.items()}
    honest, pasted, cloud = images["SLTM"], images["SLTM, render blend"], images["geometry only"]
    # The honest image is what the composed sampler drew, decoded.
    experts = experts_of(weights.composed_row("sltm", True), model, OLDER)
    composed = memories.composed(experts)
    contexts = [memories.replay.context(item.window, experts) for item in batch.windows]
    actions = torch.from_numpy(np.concatenate([item.poses_xyyaw for item in batch.windows])).float()
    drawn = composed.predict(type(contexts[0]).joined(contexts), actions, torch.full((2,), 8.0), batch.generator("cpu"))
    torch.testing.assert_close(honest[:, 0], composed.decode(drawn), atol=1e-5, rtol=0)
    # The pasted one goes up to 85 % of the way to the cloud, and at least half of it over most of the image.
    way, gone = cloud - honest, pasted - honest
    share = (gone / way)[way.abs() > 0.05]
    assert -1e-3 <= float(share.min()) <= float(share.max()) <= 0.85 + 1e-3
    assert float((share > 0.4).float().mean()) > 0.2
    torch.testing.assert_close(images["all (CoME)"], honest)
    torch.testing.assert_close(images["all (CoME), render blend"], pasted)
    assert float((images["memory network without memory"] - honest).abs().max()) > 0.1


def test_the_memory_network_alone_is_the_spatial_expert_with_an_empty_cloud(memories, drive, model):
    class Empty:
        def views(self, poses, image_size, T_base_camera=None):
            blank = torch.zeros(len(poses), 1, image_size, image_size)
            return blank.expand(-1, 3, -1, -1), blank[:, 0].bool(), blank[:, 0]

    window = window_of(drive).window
    experts = experts_of(CompositionWeights({}).composed_row("base", True), model, OLDER)
    context = memories.replay.context(window, experts)
    empty = model.with_memory(Empty()).composed({"spatial": 1.0}, "average")
    ask = torch.tensor([[0.2, 0.0, 1.0], [0.0, 0.0, -2.0]]), torch.full((2,), 8.0)
    alone = memory_network_alone(model).predict(context, *ask, torch.Generator().manual_seed(0))
    torch.testing.assert_close(alone, empty.predict(context, *ask, torch.Generator().manual_seed(0)))
    base = model.predict(context, *ask, torch.Generator().manual_seed(0))
    assert float((alone - base).abs().mean()) > 1e-3


class Paused:
    """A drive that paused for half a minute before frame ``at``."""

    def __init__(self, drive, at):
        self._recording = drive.recording
        self.stamps_s = np.asarray(drive.recording.stamps_s) + 30.0 * (np.arange(len(drive.recording)) >= at)

    def __getattr__(self, name):
        return getattr(self._recording, name)

    def __len__(self):
        return len(self._recording)

    def frame(self, index):
        return replace(self._recording.frame(index), stamp_s=float(self.stamps_s[index]))


def test_windows_after_a_pause_know_less_and_are_still_evaluated(drive, model, tmp_path):
    paused = Paused(drive, 48)
    own = MemoryDrive("paused", paused, paused, drive.memory)
    settings = replace(SETTINGS, experts=replace(SETTINGS.experts, older_frames=OLDER))
    memories = DriveMemories(own, model, settings, tmp_path, "tiny", long_term=False)
    cache = MemoryCache(lambda name: memories)
    windows = [window_of(own, start) for start in (51, 60, 53, 61)]
    batch = read_batch(windows, images_of(model))
    contexts = BatchContexts(cache, experts_of(CompositionWeights({}).composed_row("base", True), model, OLDER))
    kinds = [numbers.tolist() for numbers, _ in contexts.of(batch)]
    assert kinds == [[0], [1, 3], [2]]
    assert contexts.each(batch, lambda numbers, context: numbers).tolist() == [0, 1, 2, 3]
    poses = contexts.each(batch, lambda numbers, context: context.absolute_pose_xyyaw)
    starts = np.stack([item.window.start_odom_xyyaw for item in windows])
    np.testing.assert_allclose(poses.numpy(), starts, atol=1e-5)
    rows, _ = recall_rows(["sltm", "sltm-blend", "context"], "on", CompositionWeights({}), model, cache, OLDER)
    for row in rows:
        assert row.imagine(batch).shape == batch.truth.shape
        assert torch.isfinite(row.imagine(batch)).all()


def described(rows):
    return {row.row: {f"{own.network}|{own.sees}": own.exponent for own in row.passes} for row in rows}


CONTEXT, OLDER_SEEN, CLOUD = "context", "context, older frames", "context, older frames, cloud"


def test_passes_and_exponents_are_those_of_the_product(model):
    weights = CompositionWeights(
        {"contrast": {"all": {"base": 1, "short_term": 0.5, "long_term": 0.75, "spatial": 0.8}}}
    )
    rows = passes_of_rows(weights.compositions(list(TITLES), "on"), model)
    found = described(rows)
    assert found["base"] == {f"base|{CONTEXT}": 1.0}
    assert found["STM"] == {f"base|{OLDER_SEEN}": 1.0}
    assert found["LTM"] == {f"adapted network|{CONTEXT}": 1.0}
    assert found["SLTM"] == {f"memory network|{CLOUD}": 1.0}
    # base + 1 * (short-term - nothing), all of the base: eps_free is the base without context
    assert found["base+STM"] == {f"base|{CONTEXT}": 1.0, f"base|{OLDER_SEEN}": 1.0, "base|nothing": -1.0}
    assert found["base+LTM"] == {
        f"base|{CONTEXT}": 1.0,
        f"adapted network|{CONTEXT}": 1.0,
        f"memory network|{CONTEXT}": -1.0,
    }
    # beside the spatial memory the adapter's both sides see the cloud, too
    assert found["all (CoME)"] == {
        f"base|{CONTEXT}": pytest.approx(0.2),
        "base|nothing": pytest.approx(-0.5),
        f"base|{OLDER_SEEN}": 0.5,
        f"adapted network|{CLOUD}": 0.75,
        f"memory network|{CLOUD}": pytest.approx(0.05),
    }
    for row in rows:
        assert sum(own.exponent for own in row.passes) == pytest.approx(1.0), row.row
    # of base+SLTM nothing is left but SLTM, which therefore is no composition
    assert {row.row for row in rows if row.one_pass} == {"base+SLTM"}
    assert {row.row: row.equals for row in rows if row.equals} == {"base+SLTM": "SLTM"}


def test_rows_that_are_one_pass_and_equal_by_construction_are_marked(model):
    compositions = find_weights(None, "tiny").compositions([*TITLES, *BLENDS], "both")
    rows = passes_of_rows(compositions, model, memory_network=True)
    equal = {row.row: row.equals for row in rows if row.equals}
    for name in ("base+SLTM", "base+SLTM, no contrast", "all (CoME)", "all (CoME), no contrast"):
        assert equal[name] == "SLTM"
        assert next(row for row in rows if row.row == name).one_pass
    assert equal["all (CoME), render blend"] == "SLTM, render blend"
    assert not {"SLTM", "base", "STM", "LTM", "base+LTM", "memory network without memory"} & set(equal)
    assert rows[0].row == "memory network without memory"
    assert described(rows)[rows[0].row] == {f"memory network|{OLDER_SEEN}": 1.0}
    marks = marks_of(rows)
    assert marks["all (CoME)"] == "[one pass, = SLTM]"
    assert marks["base+STM, no contrast"] == "[= base+STM]"
    assert "base" not in marks
    text = format_table(*marked_lines((["row", "x"], [["all (CoME)", "1"], ["base", "2"]]), marks))
    assert "all (CoME) [one pass, = SLTM]" in text
    assert "memory network (context, older frames, cloud)^1" in format_table(*pass_lines(rows))
    plain = {line["row"]: line for line in json.loads(json.dumps([row.to_mapping() for row in rows]))}
    assert plain["all (CoME)"] == {**plain["SLTM"], "row": "all (CoME)", "one_pass": True, "equals": "SLTM"}
    assert plain["SLTM"]["passes"] == [{"network": "memory network", "sees": CLOUD, "exponent": 1.0}]


def test_where_the_base_is_the_memory_network_rows_fall_together(model):
    """A model without a memory network of its own: the row without memory is the short-term one."""
    plain = copy.copy(model)
    plain.memory_expert = None
    rows = passes_of_rows(CompositionWeights({}).compositions(["stm", "sltm"], "on"), plain, memory_network=True)
    assert [row.equals for row in rows] == [None, None, "memory network without memory", None]
    assert described(rows)["SLTM"] == {f"base|{CLOUD}": 1.0}


def test_experts_that_count_at_some_noise_levels_alone(model):
    own = copy.copy(model)
    own.composition = CompositionSettings(interval=(0.0, 0.4))
    rows = passes_of_rows(CompositionWeights({}).compositions(["sltm"], "on"), own)
    assert described(rows)["SLTM"] == {f"memory network|{CLOUD}": 1.0}


def test_references_show_what_they_say(memories, drive, model):
    window = window_of(drive).window
    path = torch.from_numpy(window.driven_xyyaw)[None]
    shown = NearestImaginer(memories, window.start_odom_xyyaw, True).imagine(path, torch.Generator())
    goal = window.recording.poses_xyyaw[window.goal]
    nearest = int(memories.nearest(torch.from_numpy(goal)[None])[0])
    frame = model.images_from_rgb([drive.recording.frame(nearest).rgb])
    torch.testing.assert_close(shown.images.float(), frame)
    torch.testing.assert_close(shown.latents.float(), model.encode(frame), atol=1e-4, rtol=0)
    cloud = GeometryImaginer(memories, window, model, True).imagine(path, torch.Generator())
    torch.testing.assert_close(cloud.latents.float(), model.encode(cloud.images.float()), atol=1e-4, rtol=0)


def test_rows_that_are_asked_for_are_guided_or_look_at_retrieved_frames(memories, drive, model):
    cache = MemoryCache(lambda name: memories)
    base = experts_of(CompositionWeights({}).composed_row("base", True), model, OLDER)
    adapted = experts_of(CompositionWeights({}).composed_row("base+ltm", True), model, OLDER)
    wanted = ("likelihood", "base+ltm+likelihood", "retrieved")
    rows = {row.name: row for row in optional_rows(wanted, cache, base, adapted)}
    assert list(rows) == ["base + likelihood", "base+LTM + likelihood", "retrieved context"]
    window = window_of(drive)
    batch = read_batch([window], images_of(model))
    images = {name: row.imagine(batch) for name, row in rows.items()}
    contexts = BatchContexts(cache, base)
    plain = model.decode(contexts.predicted(memories.composed(base), batch))[:, None]
    for own in images.values():
        assert own.shape == plain.shape
        assert (own - plain).abs().mean() > 1e-3
    assert (images["base + likelihood"] - images["base+LTM + likelihood"]).abs().mean() > 1e-4
    told = retrieved_context(memories, model, window.window, window.poses_xyyaw[-1])
    retrieval, kept = memories.retrieval
    target = se2.compose(window.window.start_odom_xyyaw, window.poses_xyyaw[-1])
    newest = drive.recording.frame(window.window.start)
    found = retrieval.query(target, newest.intrinsics, newest.T_base_camera, 3, newest.stamp_s)
    expected = sorted(kept[index] for index in found.indices)
    start = window.window.start_odom_xyyaw
    poses = se2.relative(torch.from_numpy(np.asarray(start)), memories.poses_xyyaw[expected])
    torch.testing.assert_close(told.poses_xyyaw[0, 3 - len(expected) : -1].double(), poses, atol=1e-4, rtol=0)
    assert (told.poses_xyyaw[0, -1] == 0).all()


def test_the_short_term_row_may_look_at_retrieved_frames(memories, drive, model):
    cache = MemoryCache(lambda name: memories)
    base = experts_of(CompositionWeights({}).composed_row("base", True), model, OLDER)
    (row,) = optional_rows(("stm-retrieved",), cache, base, base)
    assert row.name == "STM, retrieved frames"
    window = window_of(drive)
    batch = read_batch([window], images_of(model))
    newest = memories.replay.context(window.window, base)
    found = memories.retrieved_past(window.window, base)
    assert found.older_points.xyz.shape == newest.older_points.xyz.shape
    assert not torch.equal(found.older_points.xyz, newest.older_points.xyz)
    torch.testing.assert_close(found.latents, newest.latents)
    assert torch.isfinite(row.imagine(batch)).all()


def test_without_remembered_frames_of_the_target_the_newest_fill_up(memories, drive, model, monkeypatch):
    window = window_of(drive)
    nothing = Retrieved(np.zeros(0, np.int64), np.zeros(0), 0.0)
    monkeypatch.setattr(FrameRetrieval, "query", lambda *_: nothing)
    told = retrieved_context(memories, model, window.window, window.poses_xyyaw[-1])
    expected = torch.from_numpy(window.window.context_xyyaw).float()
    torch.testing.assert_close(told.poses_xyyaw[0], expected, atol=1e-4, rtol=0)


def test_a_robot_without_depth_remembers_by_what_it_estimates(drive, model, folder):
    source = Input("drives", [(drive.name, drive.recording)], {"suite": "recall"}, 1)
    found, navigation = without_depth(MemoryInput(source, {drive.name: drive}, 0.0, True), SETTINGS)
    own = found.drives[drive.name]
    assert found.source.recordings[0][1] is own.recording
    assert found.source.fingerprint == {"suite": "recall", "rgb_only": True}
    assert own.recording.frame(3).depth_m is None
    np.testing.assert_array_equal(own.recording.frame(3).rgb, drive.recording.frame(3).rgb)
    assert own.truth.frame(3).depth_m is not None  # windows are chosen by it
    blind = DriveMemories(own, model, navigation, folder, "tiny", long_term=False)
    seeing = DriveMemories(drive, model, SETTINGS, folder, "tiny", long_term=False)
    poses = torch.from_numpy(own.recording.poses_xyyaw[MEMORY : MEMORY + 2])
    views = [each.views.views(poses, model.image_size)[0] for each in (blind, seeing)]
    assert len(blind.views.memory) > 0
    assert not torch.allclose(*views, atol=0.05)
