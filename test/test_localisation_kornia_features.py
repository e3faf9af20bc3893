"""DISK, ALIKED and LightGlue of kornia with weights from files: random ones here, which need no download."""

from __future__ import annotations

import pickle
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from come_nav.core.errors import CheckpointError, ConfigError, MissingDependencyError, ShapeError
from come_nav.core.types import CameraIntrinsics
from come_nav.localisation.features import Features, FeatureSettings, extract_features
from come_nav.localisation.keyframe_map import LocaliserSettings
from come_nav.localisation.matching import MatchingSettings, match_features
from come_nav.localisation.place_recognition import PlaceIndex
from come_nav.localisation.registration import RegistrationStatus, register
from come_nav.localisation.view import make_view
from come_nav.navigation.localising.robot_localisation import RobotLocalisation
from come_nav.navigation.localising.settings import LocalisationSettings

CAMERA = CameraIntrinsics(160, 120, 150.0, 150.0, 80.0, 60.0)
STRIDE_PX = 16  # of DISK's coarsest level: by as much an image may move without another result


def scene(shift_px: int = 0) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (30, 60, 3)).astype(np.uint8)
    wide = cv2.resize(noise, (240, 120), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(wide[:, 20 + shift_px : 180 + shift_px])


@pytest.fixture(scope="module")
def kornia_feature() -> Any:
    return pytest.importorskip("kornia.feature", reason="needs the extra [learned]")


@pytest.fixture(autouse=True)
def no_network(monkeypatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("weights come from files alone")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def save_disk(library: Any, path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    torch.save({"extractor": library.DISK().state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def disk(kornia_feature, tmp_path_factory) -> FeatureSettings:
    path = save_disk(kornia_feature, tmp_path_factory.mktemp("disk") / "depth-save.pth")
    return FeatureSettings(kind="disk", file=str(path))


def save_light_glue(library: Any, path: Path, *, published: bool = False, **words: Any) -> Path:
    """Save a LightGlue that compares what it made of descriptors, sharply: each is surest to match itself."""
    torch.manual_seed(1)
    tensors = library.LightGlue(None, **{"input_dim": 128, "n_layers": 3, **words}).state_dict()
    for name, tensor in tensors.items():
        if name.endswith("final_proj.weight"):
            tensors[name] = 40.0 * torch.eye(len(tensor))
        elif name.endswith("matchability.bias"):
            tensors[name] = torch.full_like(tensor, 20.0)
    if published:  # as the first files name their tensors, without what the constructor makes
        tensors.pop("confidence_thresholds")
        for part in ("self_attn", "cross_attn"):
            for layer in range(3):
                old, new = f"transformers.{layer}.{part}", f"{part}.{layer}"
                tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
    torch.save(tensors, path)
    return path


@pytest.fixture(scope="module", params=[False, True], ids=["kornia's names", "published names"])
def light_glue(request, kornia_feature, tmp_path_factory) -> MatchingSettings:
    path = tmp_path_factory.mktemp("light_glue") / "disk_lightglue.pth"
    save_light_glue(kornia_feature, path, published=request.param)
    return MatchingSettings(matcher="lightglue", file=str(path))


def test_disk_equals_kornias_own_at_sizes_that_are_no_multiples_of_16(kornia_feature, disk):
    image = scene()[:117, :151]
    found = extract_features(image, replace(disk, max_count=2000))
    network = kornia_feature.DISK().eval()
    network.load_state_dict(torch.load(disk.file, weights_only=True)["extractor"])
    padded = np.zeros((128, 160, 3), np.float32)
    padded[:117, :151] = image / np.float32(255.0)
    with torch.inference_mode():
        (theirs,) = network(torch.from_numpy(padded).permute(2, 0, 1)[None])
    inside = (theirs.keypoints < torch.tensor([148, 114])).all(1)  # the padding's maxima do not count
    expected = {
        tuple(own): row.numpy()
        for own, row in zip(theirs.keypoints[inside].tolist(), theirs.descriptors[inside], strict=True)
    }
    mine = {tuple(own): row for own, row in zip((found.keypoints_px - 0.5).tolist(), found.vectors(), strict=True)}
    both = set(expected) & set(mine)
    assert len(both) > 0.95 * len(expected) > 50
    assert min(float(expected[own] @ mine[own]) for own in both) > 0.999
    assert (found.width, found.height, found.descriptors.dtype) == (151, 117, np.uint8)
    assert (found.keypoints_px > 0).all() and (found.keypoints_px < [151, 117]).all()


def test_an_image_matches_itself(disk):
    features = extract_features(scene(), disk)
    assert 50 < len(features) <= disk.max_count
    pairs = match_features(features, features, MatchingSettings(ratio=1.0))
    assert (pairs[:, 0] == pairs[:, 1]).all()
    assert len(pairs) > 0.9 * len(features)
    few = extract_features(scene(), replace(disk, max_count=20))
    assert len(few) == 20
    assert set(map(tuple, few.keypoints_px)) <= set(map(tuple, features.keypoints_px))


def test_light_glue_matches_an_image_with_itself(disk, light_glue):
    features = extract_features(scene(), disk)
    pairs = match_features(features, features, light_glue)
    assert (pairs[:, 0] == pairs[:, 1]).all()
    assert len(pairs) > 0.9 * len(features)
    shuffled = np.random.default_rng(3).permutation(len(features))
    other = replace(
        features,
        keypoints_px=features.keypoints_px[shuffled],
        descriptors=features.descriptors[shuffled],
        sizes_px=features.sizes_px[shuffled],
    )
    crossed = match_features(features, other, light_glue)
    assert (shuffled[crossed[:, 1]] == crossed[:, 0]).all()
    assert len(crossed) > 0.9 * len(features)


def test_what_is_not_allowed_is_sifted_out(disk, light_glue):
    features = extract_features(scene(), disk)
    allowed = np.ones((len(features), len(features)), np.bool_)
    allowed[::2] = False
    pairs = match_features(features, features, light_glue, allowed)
    assert len(pairs)
    assert (pairs[:, 0] % 2 == 1).all()


def test_images_register_by_features_of_random_weights(disk):
    depth = np.full((120, 160), 2.0, np.float32)
    found = register(*(make_view(scene(shift), CAMERA, depth, disk) for shift in (0, STRIDE_PX)))
    assert found.ok
    np.testing.assert_allclose(found.T_a_b[:3, 3], [STRIDE_PX / 150.0 * 2.0, 0.0, 0.0], atol=0.02)


def test_images_without_texture_grey_and_empty(disk, light_glue):
    depth = np.full((120, 160), 2.0, np.float32)
    blank, seen = (make_view(image, CAMERA, depth, disk) for image in (np.full((120, 160, 3), 90, np.uint8), scene()))
    assert not register(blank, seen).ok
    assert not register(blank, seen, matching=light_glue).ok
    assert len(extract_features(scene()[..., 0], disk)) > 50
    none = Features(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8), np.zeros(0, np.float32), 160, 120)
    nothing = replace(none, kind=seen.features.kind)
    assert match_features(nothing, seen.features, light_glue).shape == (0, 2)
    assert register(replace(seen, features=nothing, points_camera_m=np.zeros((0, 3), np.float32)), seen).status is (
        RegistrationStatus.TOO_FEW_FEATURES
    )


@pytest.mark.parametrize(("size", "length"), [("t16", 64), ("n16", 128), ("n32", 128)])
def test_aliked_of_each_size_is_told_by_its_tensors(kornia_feature, tmp_path, size, length):
    if not hasattr(kornia_feature, "ALIKED"):
        pytest.skip("this kornia has no ALIKED")
    torch.manual_seed(0)
    network = kornia_feature.ALIKED(f"aliked-{size}", max_num_keypoints=100, detection_threshold=0.0).eval()
    tensors = {name: tensor for name, tensor in network.state_dict().items() if name != "dkd.hw_grid"}
    torch.save(tensors, tmp_path / "aliked.pth")
    image = scene()[:117, :151]
    settings = FeatureSettings(kind="aliked", file=str(tmp_path / "aliked.pth"), max_count=100)
    found = extract_features(image, settings)
    with torch.inference_mode():
        (theirs,) = network(torch.from_numpy(image.astype(np.float32) / 255.0).permute(2, 0, 1)[None])
    assert len(found) == len(theirs.keypoints) > 20
    order = theirs.keypoint_scores.argsort(descending=True, stable=True)
    np.testing.assert_allclose(found.keypoints_px, theirs.keypoints[order].numpy() + 0.5, atol=1e-3)
    assert np.einsum("nd,nd->n", found.vectors(), theirs.descriptors[order].numpy()).min() > 0.999
    assert found.descriptors.shape[1] == length


def test_an_old_kornia_without_aliked_is_told(kornia_feature, monkeypatch, tmp_path):
    monkeypatch.delattr(kornia_feature, "ALIKED", raising=False)
    torch.save({"block1.conv1.weight": torch.zeros(16, 3, 3, 3)}, tmp_path / "aliked.pth")
    with pytest.raises(MissingDependencyError, match=r"kornia>=0\.9"):
        extract_features(scene(), FeatureSettings(kind="aliked", file=str(tmp_path / "aliked.pth")))


def test_kinds_and_files_are_never_mixed(kornia_feature, disk, tmp_path):
    ours, sift = extract_features(scene(), disk), extract_features(scene())
    theirs = extract_features(scene(), replace(disk, file=str(save_disk(kornia_feature, tmp_path / "other.pth", 5))))
    for other in (sift, theirs):
        with pytest.raises(ShapeError, match="cannot be matched"):
            match_features(ours, other)
        index = PlaceIndex()
        index.add(ours)
        with pytest.raises(ShapeError, match="cannot be looked for"):
            index.add(other)


def test_light_glue_is_for_features_of_networks(light_glue):
    with pytest.raises(ConfigError, match=r"lightglue needs features\.kind learned, disk, aliked, got sift"):
        LocaliserSettings(matching=light_glue)
    sift = extract_features(scene())
    with pytest.raises(ConfigError, match="got sift"):
        match_features(sift, sift, light_glue)
    with pytest.raises(ConfigError, match=r"lightglue needs matching\.file"):
        MatchingSettings(matcher="lightglue")
    with pytest.raises(ConfigError, match="no other has one"):
        MatchingSettings(file="weights.pth")


class Harmful:
    """Would run code while it is unpickled."""

    def __reduce__(self) -> Any:
        return (print, ("code of a file ran",))


def test_files_that_hold_no_weights_are_refused_in_one_line(disk, tmp_path, capsys):
    text, code, listed = tmp_path / "text.pth", tmp_path / "code.pth", tmp_path / "list.pth"
    text.write_text("no weights")
    code.write_bytes(pickle.dumps(Harmful()))
    torch.save([1, 2], listed)
    short, bad, wide = tmp_path / "short.pth", tmp_path / "bad.pth", tmp_path / "wide.pth"
    whole = torch.load(disk.file, weights_only=True)["extractor"]
    first = next(iter(whole))
    torch.save({name: tensor for name, tensor in whole.items() if name != first}, short)
    torch.save({**whole, first: torch.full_like(whole[first], torch.nan)}, bad)
    torch.save({**whole, first: torch.zeros(2, 2)}, wide)
    for path, words in (
        (tmp_path / "absent.pth", r"no such file; .*depth-save\.pth of https"),
        (text, "cannot be read as weights"),
        (code, "cannot be read as weights"),
        (listed, "holds a list that is no state dict"),
        (short, f"tensor '{first}' is missing"),
        (bad, f"tensor '{first}' holds NaN"),
        (wide, f"tensor '{first}' must have shape"),
    ):
        with pytest.raises(CheckpointError, match=words) as told:
            extract_features(scene(), replace(disk, file=str(path)))
        assert path.name in str(told.value)
        assert len(str(told.value).splitlines()) == 1
    assert "code of a file ran" not in capsys.readouterr().out


def test_weights_in_safetensors_are_read(disk, tmp_path):
    from safetensors.torch import save_file

    save_file(torch.load(disk.file, weights_only=True)["extractor"], tmp_path / "disk.safetensors")
    same = extract_features(scene(), replace(disk, file=str(tmp_path / "disk.safetensors")))
    np.testing.assert_array_equal(same.keypoints_px, extract_features(scene(), disk).keypoints_px)


def test_weights_of_light_glue_that_do_not_fit_are_refused(kornia_feature, disk, tmp_path):
    features = extract_features(scene(), disk)
    wide = save_light_glue(kornia_feature, tmp_path / "superpoint.pth", input_dim=256)
    sift = save_light_glue(kornia_feature, tmp_path / "sift.pth", add_scale_ori=True)
    for path, words in (
        (tmp_path / "absent.pth", "no such file"),
        (wide, "belongs to descriptors of 256 numbers, these features have 128"),
        (sift, "look at sizes and directions of features"),
        (Path(disk.file), "no weights of LightGlue"),
    ):
        with pytest.raises(CheckpointError, match=words):
            match_features(features, features, MatchingSettings(matcher="lightglue", file=str(path)))


def test_without_kornia_one_line_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "kornia", None)
    monkeypatch.setitem(sys.modules, "kornia.feature", None)
    path = tmp_path / "weights.pth"
    torch.save({}, path)
    vectors = np.eye(4, dtype=np.float32).astype(np.uint8)
    features = Features(np.ones((4, 2), np.float32), vectors, np.ones(4, np.float32), 9, 9, "disk 0")
    for asked in (
        lambda: extract_features(scene(), FeatureSettings(kind="disk", file=str(path))),
        lambda: match_features(features, features, MatchingSettings(matcher="lightglue", file=str(path))),
    ):
        with pytest.raises(MissingDependencyError, match=r"'kornia'.*pip install 'come_nav\[learned\]'") as told:
            asked()
        assert len(str(told.value).splitlines()) == 1


def test_a_robot_says_at_its_start_what_is_wrong_with_a_network(tmp_path):
    absent = LocaliserSettings(features=FeatureSettings(kind="learned", file=str(tmp_path / "absent.onnx")))
    with pytest.raises(CheckpointError, match=r"absent\.onnx: no such file"):
        RobotLocalisation(LocalisationSettings(visual=absent))
    RobotLocalisation(LocalisationSettings(use=False, visual=absent))
