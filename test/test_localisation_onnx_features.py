"""Features of a network in an ONNX file, by ONNX Runtime and by OpenCV: both find what the formula says."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from onnx_graph import FLOAT, constant, node, value_info, write_model
from torch.nn import functional

from come_nav.core.errors import CheckpointError, ComeNavError, MissingDependencyError
from come_nav.core.types import CameraIntrinsics
from come_nav.localisation.features import FeatureSettings, extract_features
from come_nav.localisation.matching import match_features
from come_nav.localisation.registration import register
from come_nav.localisation.view import make_view

CAMERA = CameraIntrinsics(160, 120, 150.0, 150.0, 80.0, 60.0)
LENGTH, PATCH = 24, 11
FILTERS = np.random.default_rng(2).normal(size=(LENGTH, 1, PATCH, PATCH)).astype(np.float32)
FILTERS -= FILTERS.mean(axis=(2, 3), keepdims=True)
THRESHOLD, MOST = 0.04, 700
NAMES = ["keypoints", "scores", "descriptors"]


def blobs(path: Path, names: list[str], operator: str = "TopK") -> Path:
    """Write a network: maxima of a blob filter, described by random filters; outputs in the order of ``names``.

    It returns the strongest ``MOST``; what is no maximum among them scores minus infinity.
    """
    nodes = [
        node("AveragePool", ["image"], ["small"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        node("AveragePool", ["image"], ["large"], kernel_shape=[9, 9], pads=[4, 4, 4, 4], count_include_pad=1),
        node("Sub", ["small", "large"], ["signed"]),
        node("Abs", ["signed"], ["response"]),
        node("MaxPool", ["response"], ["largest"], kernel_shape=[7, 7], pads=[3, 3, 3, 3]),
        node("Sub", ["largest", "response"], ["short"]),
        node("Less", ["short", "tiny"], ["is_peak"]),
        node("Greater", ["response", "threshold"], ["is_strong"]),
        node("And", ["is_peak", "is_strong"], ["chosen"]),
        node("Where", ["chosen", "response", "none"], ["masked"]),
        node("Reshape", ["masked", "flat"], ["flattened"]),
        node(operator, ["flattened", "most"], ["scores", "index"], axis=0),
        node("Shape", ["image"], ["shape"]),
        node("Gather", ["shape", "third"], ["width"], axis=0),
        node("Mod", ["index", "width"], ["u"]),
        node("Div", ["index", "width"], ["v"]),
        node("Unsqueeze", ["u", "second"], ["u_column"]),
        node("Unsqueeze", ["v", "second"], ["v_column"]),
        node("Concat", ["u_column", "v_column"], ["pixels"], axis=1),
        node("Cast", ["pixels"], ["keypoints"], to=FLOAT),
        node("Conv", ["image", "filters"], ["described"], kernel_shape=[PATCH, PATCH], pads=[5, 5, 5, 5]),
        node("Transpose", ["described"], ["described_last"], perm=[0, 2, 3, 1]),
        node("Reshape", ["described_last", "table"], ["cells"]),
        node("Gather", ["cells", "index"], ["descriptors"], axis=0),
    ]
    constants = [
        constant("tiny", np.float32(1e-9)),
        constant("threshold", np.float32(THRESHOLD)),
        constant("none", np.float32(-np.inf)),
        constant("flat", np.array([-1])),
        constant("most", np.array([MOST])),
        constant("third", np.array([3])),
        constant("second", np.array([1])),
        constant("table", np.array([-1, LENGTH])),
        constant("filters", FILTERS),
    ]
    shapes = {"keypoints": [MOST, 2], "scores": [MOST], "descriptors": [MOST, LENGTH]}
    image = value_info("image", FLOAT, [1, 1, "H", "W"])
    return write_model(path, nodes, constants, [image], [value_info(own, FLOAT, shapes[own]) for own in names])


def listing(path: Path) -> Path:
    """Write a network that lists bright pixels, however many there are."""
    nodes = [
        node("Greater", ["image", "threshold"], ["chosen"]),
        node("NonZero", ["chosen"], ["places"]),
        node("Transpose", ["places"], ["rows"], perm=[1, 0]),
        node("GatherND", ["image", "rows"], ["scores"]),
        node("Gather", ["rows", "u_v"], ["pixels"], axis=1),
        node("Cast", ["pixels"], ["keypoints"], to=FLOAT),
        node("Cast", ["rows"], ["descriptors"], to=FLOAT),
    ]
    constants = [constant("threshold", np.float32(0.9)), constant("u_v", np.array([3, 2]))]
    shapes = {"keypoints": ["N", 2], "scores": ["N"], "descriptors": ["N", 4]}
    image = value_info("image", FLOAT, [1, 1, "H", "W"])
    return write_model(path, nodes, constants, [image], [value_info(own, FLOAT, shapes[own]) for own in NAMES])


def formula(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what the network must find in an image (H, W) uint8."""
    image = torch.from_numpy(grey.astype(np.float32) / 255.0)[None, None]
    response = (functional.avg_pool2d(image, 3, 1, 1) - functional.avg_pool2d(image, 9, 1, 4)).abs()
    peaks = (response == functional.max_pool2d(response, 7, 1, 3)) & (response > THRESHOLD)
    rows = peaks[0, 0].nonzero()
    described = functional.conv2d(image, torch.from_numpy(FILTERS), padding=5)[0]
    scores = response[0, 0][rows[:, 0], rows[:, 1]]
    return rows.flip(1).float().numpy(), scores.numpy(), described[:, rows[:, 0], rows[:, 1]].T.numpy()


def scene(shift_px: int = 0) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (30, 60)).astype(np.uint8)
    wide = cv2.resize(noise, (240, 120), interpolation=cv2.INTER_CUBIC)
    return np.repeat(wide[:, 20 + shift_px : 180 + shift_px, None], 3, axis=2)


@pytest.fixture(params=["opencv", "onnxruntime"])
def runner(request, monkeypatch) -> str:
    """Either library runs the file; OpenCV comes with the base install."""
    if request.param == "onnxruntime":
        pytest.importorskip("onnxruntime", reason="needs the extra [learned]")
    else:
        without_onnx_runtime(monkeypatch)
    return str(request.param)


def without_onnx_runtime(monkeypatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "onnxruntime" else found(name))


def settings(path: Path) -> FeatureSettings:
    return FeatureSettings(kind="learned", file=str(path))


@pytest.mark.parametrize("names", [NAMES, NAMES[::-1]])
def test_a_file_finds_what_the_formula_says(runner, names, tmp_path):
    found = extract_features(scene(), settings(blobs(tmp_path / "blobs.onnx", names)))
    keypoints, scores, descriptors = formula(cv2.cvtColor(scene(), cv2.COLOR_RGB2GRAY))
    assert len(keypoints) > 50
    mine, theirs = np.lexsort(found.keypoints_px.T), np.lexsort(keypoints.T)
    np.testing.assert_allclose(found.keypoints_px[mine], keypoints[theirs] + 0.5)
    exact = descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
    assert np.einsum("nd,nd->n", found.vectors()[mine], exact[theirs]).min() > 0.999
    by_rank = np.empty(len(found))
    by_rank[mine] = scores[theirs]
    assert np.diff(by_rank).max() < 1e-6  # the strongest first, but for ties
    assert found.kind.startswith("learned ")
    assert found.descriptors.dtype == np.uint8


def test_images_of_other_sizes_and_without_texture(runner, tmp_path):
    config = settings(blobs(tmp_path / "blobs.onnx", NAMES))
    small = extract_features(scene()[:77, :101], config)
    assert 20 < len(small) < len(extract_features(scene(), config))
    assert (small.keypoints_px < [101, 77]).all()
    inside = np.zeros((120, 160, 3), np.uint8)
    none = extract_features(inside, config)
    assert len(none) == 0
    assert len(match_features(none, small)) == 0


def test_images_register(runner, tmp_path):
    config, depth = settings(blobs(tmp_path / "blobs.onnx", NAMES)), np.full((120, 160), 2.0, np.float32)
    found = register(*(make_view(scene(shift), CAMERA, depth, config) for shift in (0, 6)))
    assert found.ok
    np.testing.assert_allclose(found.T_a_b[:3, 3], [6.0 / 150.0 * 2.0, 0.0, 0.0], atol=0.01)


def test_a_file_that_is_no_network_is_refused_in_one_line(runner, tmp_path, capfd):
    text = tmp_path / "text.onnx"
    text.write_text("no network")
    with pytest.raises(ComeNavError, match=r"text\.onnx: ") as told:
        extract_features(scene(), settings(text))
    assert len(str(told.value).splitlines()) == 1
    assert capfd.readouterr() == ("", "")


def test_outputs_that_are_no_features_are_refused(runner, tmp_path):
    image = value_info("image", FLOAT, [1, 1, "H", "W"])
    nodes = [node("Abs", ["image"], ["one"]), node("Neg", ["image"], ["two"])]
    outputs = [value_info(name, FLOAT, [1, 1, "H", "W"]) for name in ("one", "two")]
    path = write_model(tmp_path / "two.onnx", nodes, [], [image], outputs)
    with pytest.raises(CheckpointError, match="returns 2 values; it must return keypoints"):
        extract_features(scene(), settings(path))


def test_what_opencv_cannot_run_names_the_extra(monkeypatch, tmp_path, capfd):
    without_onnx_runtime(monkeypatch)
    path = blobs(tmp_path / "new.onnx", NAMES, operator="OperatorOfTomorrow")
    with pytest.raises(MissingDependencyError, match=r"'onnxruntime'.*pip install 'come_nav\[learned\]'") as told:
        extract_features(scene(), settings(path))
    assert len(str(told.value).splitlines()) == 1
    assert capfd.readouterr() == ("", "")


def test_a_network_that_finds_nothing_does_not_end_the_process(runner, tmp_path):
    """OpenCV 5.0 does so; then the file is refused before an image comes."""
    try:
        found = extract_features(np.zeros((120, 160), np.uint8), settings(listing(tmp_path / "list.onnx")))
    except MissingDependencyError as error:
        assert runner == "opencv"
        assert "it ends the process on an image without features" in str(error)
    else:
        assert len(found) == 0


def test_onnx_runtime_tells_what_it_cannot_read(tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra [learned]")
    path = blobs(tmp_path / "new.onnx", NAMES, operator="OperatorOfTomorrow")
    with pytest.raises(CheckpointError, match=r"new\.onnx: ONNX Runtime cannot read it .*OperatorOfTomorrow"):
        extract_features(scene(), settings(path))


def test_optional_libraries_are_not_imported_before_they_are_asked_for():
    program = (
        "import sys, come_nav.localisation.localiser\n"
        "print(sorted({'kornia', 'onnxruntime', 'torch'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
