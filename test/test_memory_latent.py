"""The spatial memory of latents: lifting, z-buffer, anchors, options, and the disk."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from come_nav.core.errors import ConfigError, ShapeError
from come_nav.core.protocols import LatentSpatialSource, SpatialSource
from come_nav.core.types import CameraIntrinsics, Frame
from come_nav.memory.spatial.cloud import InsertResult, SpatialMemory
from come_nav.memory.spatial.latent.features import LatentFeatures, depth_of_cells, upsampled
from come_nav.memory.spatial.latent.views import RememberedLatents
from come_nav.memory.spatial.settings import LatentSettings, SpatialSettings
from come_nav.memory.spatial.shared_cloud import SharedCloud
from come_nav.memory.store.store import MemoryStore

CAMERA = CameraIntrinsics(64, 64, 32.0, 32.0, 32.0, 32.0)
EXTRINSICS = np.array([[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.5], [0.0, 0.0, 0.0, 1.0]])
ORIGIN = np.zeros(3)
HERE = torch.zeros(1, 3)


def frame(depth_m: float = 2.0, stamp_s: float = 0.0) -> Frame:
    depth = np.full((64, 64), depth_m, np.float32)
    return Frame(stamp_s, np.zeros((64, 64, 3), np.uint8), depth, CAMERA, EXTRINSICS)


def memory_of(latents, **settings) -> SpatialMemory:
    """Return a memory of latents; ``latents`` is (C, h, w), or a function from a frame to that."""
    encode = latents if callable(latents) else lambda _: latents
    channels = encode(frame()).shape[0]
    own = SpatialSettings("latent", **settings)
    return SpatialMemory(own, LatentFeatures(encode, channels, depth=own.latent.depth))


def views_of(memory: SpatialMemory, size: int, decode=None) -> RememberedLatents:
    return RememberedLatents(memory, CAMERA, EXTRINSICS, decode or (lambda latents: latents[:, :3]), size)


def random_latents(channels: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(channels, size, size, generator=torch.Generator().manual_seed(seed))


def test_a_cell_reads_its_depth_in_four_ways() -> None:
    depth = np.array([[1, 2, 5, 5], [3, 10, 5, 5], [np.nan, 0, 4, 8], [0, np.nan, 6, 2]], np.float32)
    bilinear = depth_of_cells(depth, 2, 2)
    np.testing.assert_allclose(bilinear, [[4.0, 5.0], [np.nan, 5.0]])
    np.testing.assert_allclose(depth_of_cells(depth, 2, 2, "nearest"), [[10.0, 5.0], [np.nan, 2.0]])
    np.testing.assert_allclose(depth_of_cells(depth, 2, 2, "median"), [[2.5, 5.0], [np.nan, 5.0]])
    np.testing.assert_allclose(depth_of_cells(depth, 2, 2, "area"), [[4.0, 5.0], [np.nan, 5.0]])
    depth[2, 0] = 7.0  # one known pixel of four
    assert depth_of_cells(depth, 2, 2, "area")[1, 0] == depth_of_cells(depth, 2, 2, "median")[1, 0] == 7.0
    assert np.isnan(depth_of_cells(depth, 2, 2)[1, 0])


@pytest.mark.parametrize(("channels", "size"), [(32, 8), (4, 28)])
@pytest.mark.parametrize("readout", ["nearest", "blend"])
def test_what_was_seen_is_read_out_as_it_was(channels: int, size: int, readout: str) -> None:
    latents = random_latents(channels, size)
    memory = memory_of(latents, latent=LatentSettings(readout=readout))
    assert memory.observe(frame(), ORIGIN) is InsertResult.KEPT
    source = views_of(memory, size)
    assert isinstance(source, LatentSpatialSource)
    shown, known, inverse_depth = source.latent_views(HERE, size)
    assert known.all()
    torch.testing.assert_close(shown[0], latents)
    torch.testing.assert_close(inverse_depth, torch.full((1, size, size), 0.5))


def test_the_nearest_point_wins_and_holes_are_told() -> None:
    far, near = random_latents(4, 8), random_latents(4, 8, 1)
    memory = memory_of(lambda seen: far if seen.stamp_s == 0.0 else near, carve_looks=0.0, max_range_m=20.0)
    memory.observe(frame(8.0, 0.0), ORIGIN)
    memory.observe(frame(2.0, 1.0), ORIGIN)
    shown, known, _ = views_of(memory, 8).latent_views(HERE, 8)
    assert known.all()
    torch.testing.assert_close(shown[0], near)
    # from one cell (0.5 m at 2 m) further left the near plane's last column is out of sight, and the first unknown
    moved = torch.tensor([[0.0, 0.5, 0.0]])
    memory = memory_of(near)
    memory.observe(frame(2.0), ORIGIN)
    shown, known, inverse_depth = views_of(memory, 8).latent_views(moved, 8)
    assert known[0, :, 1:].all()
    assert not known[0, :, 0].any()
    torch.testing.assert_close(shown[0, :, :, 1:], near[:, :, :-1])
    assert (shown[0, :, :, 0] == 0).all()
    assert (inverse_depth[0, :, 0] == 0).all()


def test_nothing_is_known_behind_and_before_anything_was_seen() -> None:
    memory = memory_of(random_latents(4, 8))
    source = views_of(memory, 8)
    assert not source.latent_views(HERE, 8)[1].any()
    memory.observe(frame(), ORIGIN)
    assert not source.latent_views(torch.tensor([[0.0, 0.0, np.pi]]), 8)[1].any()


def test_points_move_with_their_key_frame() -> None:
    latents = random_latents(4, 8)
    memory = memory_of(latents)
    memory.move(np.zeros((1, 3)))
    memory.observe(frame(2.0), ORIGIN)
    assert memory.move(np.array([[0.5, 0.0, 0.0], [0.0, 0.0, 0.0]])) == 64
    shown, known, inverse_depth = views_of(memory, 8).latent_views(torch.tensor([[0.5, 0.0, 0.0]]), 8)
    assert known.all()
    torch.testing.assert_close(shown[0], latents)
    torch.testing.assert_close(inverse_depth, torch.full((1, 8, 8), 0.5), atol=1e-5, rtol=0)


def test_merging_is_a_choice_and_the_budget_holds() -> None:
    several = lambda seen: random_latents(4, 8, int(seen.stamp_s))  # noqa: E731
    merged, apart = memory_of(several), memory_of(several, latent=LatentSettings(merge=False))
    small = memory_of(several, latent=LatentSettings(merge=False), max_voxels=100)
    for number in range(4):
        for memory in (merged, apart, small):
            memory.observe(frame(2.0, float(number)), np.array([0.0, 0.01 * number, 0.0]))
    assert len(merged) < 2 * 64
    assert len(apart) == 4 * 64
    assert len(small) <= 100
    own, mean = memory_of(several), torch.stack([random_latents(4, 8, number) for number in range(3)]).mean(0)
    for number in range(3):
        own.observe(frame(2.0, float(number)), ORIGIN)
    assert len(own) == 64
    torch.testing.assert_close(views_of(own, 8).latent_views(HERE, 8)[0][0], mean, atol=1e-5, rtol=1e-4)


def test_what_is_gone_is_seen_through_with_the_depth_of_pixels() -> None:
    memory = memory_of(random_latents(4, 8))
    memory.observe(frame(1.0, 0.0), ORIGIN)
    for number in range(1, 4):
        memory.observe(frame(4.0, float(number)), ORIGIN)
    assert memory.carved == 64
    _, _, inverse_depth = views_of(memory, 8).latent_views(HERE, 8)
    torch.testing.assert_close(inverse_depth, torch.full((1, 8, 8), 0.25))


def test_pixels_are_decoded_for_those_who_ask_for_them() -> None:
    latents = random_latents(4, 8)
    memory = memory_of(latents)
    memory.observe(frame(), ORIGIN)
    source = views_of(memory, 8, lambda found: found[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3))
    assert isinstance(source, RememberedLatents)
    whole: SpatialSource = source
    image, known, inverse_depth = whole.views(torch.tensor([[0.0, 0.5, 0.0]]), 64)
    assert image.shape == (1, 3, 64, 64)
    assert not known[0, :, :8].any()
    assert known[0, :, 8:].all()
    torch.testing.assert_close(image[0, :, 4::8, 12::8], latents[:3, :, :-1])
    assert inverse_depth[0, 0, 20] == pytest.approx(0.5)
    assert source.views(HERE, 16)[0].shape == (1, 3, 16, 16)


def test_a_store_keeps_latents_and_tells_what_it_holds(tmp_path) -> None:
    latents, store = random_latents(4, 8), MemoryStore(tmp_path / "store")
    memory = memory_of(latents)
    memory.observe(frame(), ORIGIN)
    store.save(cloud=memory.state())
    again = memory_of(latents)
    assert SharedCloud(store, again).poll()
    torch.testing.assert_close(views_of(again, 8).latent_views(HERE, 8)[0][0], latents)
    assert SpatialMemory.from_state(store.load().cloud).config.features == "latent"
    shared = SharedCloud(store, SpatialMemory())
    assert not shared.poll()
    assert shared.diagnosis == (
        "the saved cloud remembers latent (4 features for each point), this memory rgb (3); set spatial.features to "
        "latent and take the model that it was made with, or fill another store"
    )
    with pytest.raises(ShapeError, match=r"remembers latent \(4 .* this memory latent \(5\)"):
        memory_of(random_latents(5, 8)).load_state(memory.state())
    colours = SpatialMemory()
    colours.observe(frame(), ORIGIN)
    with pytest.raises(ShapeError, match=r"set spatial\.features to rgb"):
        memory.load_state(colours.state())


def test_impossible_settings_name_the_field() -> None:
    with pytest.raises(ConfigError, match=r"spatial\.features"):
        SpatialSettings("colour")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"spatial\.latent\.depth"):
        LatentSettings("mean")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"spatial\.latent\.readout"):
        LatentSettings(readout="all")  # type: ignore[arg-type]


def test_latents_lifted_at_pixels_are_interpolated_and_have_their_own_depth() -> None:
    latents = random_latents(4, 8)
    spread = upsampled(latents.numpy(), 64, 64)
    whole = torch.nn.functional.interpolate(latents[None], (64, 64), mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(spread, whole.numpy(), atol=1e-5)
    own = SpatialSettings("latent", latent=LatentSettings(lift="pixels", merge=False), max_points_per_frame=10_000)
    memory = SpatialMemory(own, LatentFeatures(lambda _: latents, 4, lift="pixels"))
    memory.observe(frame(2.0), ORIGIN)
    assert len(memory) == 64 * 64
    shown, known, _ = views_of(memory, 8).latent_views(HERE, 8)
    assert known.all()
    assert (shown[0] - latents).square().mean() < 0.6 * latents.square().mean()  # one of the pixels of each cell


def test_what_passes_by_is_left_out_and_what_stands_still_is_not() -> None:
    """A wall at 4 m; something stands 2 m before it at 2 s for a moment, or for good."""

    def depth(near: bool, stamp_s: float) -> Frame:
        seen = frame(4.0, stamp_s)
        if near:
            seen.depth_m[16:48, 16:48] = 2.0
        return seen

    def remembered(near_at: set[int], looks: int, frames: int = 8) -> tuple[SpatialMemory, float]:
        memory = memory_of(random_latents(4, 8), carve_looks=0.0, earlier_looks=looks)
        for number in range(frames):
            memory.observe(depth(number in near_at, float(number)), ORIGIN)
        return memory, float((memory.points_xyz[:, 0] < 3.0).sum())

    with_it, there = remembered({2, 3}, 0)
    assert there == 16
    assert with_it.passing == 0
    without, left = remembered({2, 3}, 4)
    assert left == 0.0
    assert without.passing == 32
    _, standing = remembered(set(range(2, 8)), 4)
    assert standing == 16, "after four frames nobody remembers to have seen through it"
    first = memory_of(random_latents(4, 8), carve_looks=0.0, earlier_looks=4)
    first.observe(depth(True, 0.0), ORIGIN)
    assert float((first.points_xyz[:, 0] < 3.0).sum()) == 16
    first.move(np.zeros((1, 3)))
    moved = memory_of(random_latents(4, 8), carve_looks=0.0, earlier_looks=4)
    moved.observe(frame(4.0), ORIGIN)
    turned = np.array([0.0, 0.0, np.pi])
    moved.observe(depth(True, 1.0), turned)
    assert moved.passing == 0, "no earlier frame looked there"
