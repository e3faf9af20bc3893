"""``--no-progress``: nothing counts on the terminal, neither while worlds are rendered nor while networks train."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from training_samples import CONFIG, STAGE

from come_nav.cli import main
from come_nav.core.settings import to_mapping
from come_nav.core.types import Frame
from come_nav.training.data.recording_bank import RecordingEncoder
from come_nav.training.tasks import views
from come_nav.world_model.depth import DepthEstimator, DepthSettings
from come_nav.world_model.images import images_from_rgb

ONCE = replace(STAGE, steps=1, warmup_steps=0, validate_every=1, save_every=1)
RUN = replace(CONFIG, data=replace(CONFIG.data, episode_s=5.0), autoencoder=ONCE, denoiser=ONCE)
BARS = ("make worlds", "render and encode worlds", "Epoch")  # of the autoencoder, of the banks, of Lightning


class Corridor:
    """Forty grey frames."""

    name, rate_hz, intrinsics, T_base_camera, metadata = "corridor", 4.0, None, None, {}

    def __init__(self) -> None:
        self.stamps_s = np.arange(40) / 4.0
        self.poses_xyyaw = np.zeros((40, 3))
        self.T_odom_base = np.tile(np.eye(4), (40, 1, 1))

    def __len__(self) -> int:
        return 40

    def frame(self, index: int) -> Frame:
        return Frame(index / 4.0, np.full((16, 16, 3), 6 * index, np.uint8))


@pytest.mark.parametrize("shown", [True, False])
def test_no_progress_means_none(tmp_path: Path, capsys: pytest.CaptureFixture[str], shown: bool) -> None:
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(to_mapping(RUN)), encoding="utf-8")
    words = ["train", "--config", str(tmp_path / "toy.yaml"), "--out", str(tmp_path / "run"), "--accelerator", "cpu"]
    assert main.main([*words, *([] if shown else ["--no-progress"])]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [str(tmp_path / "run" / "toy")]
    assert [bar in printed.err for bar in BARS] == [shown] * len(BARS)
    assert shown or "it/s" not in printed.err


@pytest.mark.parametrize("shown", [True, False])
def test_banks_of_recordings_are_as_silent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, shown: bool
) -> None:
    monkeypatch.setattr(views, "FRAMES_PER_CALL", 1)  # so that forty frames are many
    encoder = RecordingEncoder(
        Corridor(),
        (0.0, 1.0),
        lambda images: images_from_rgb(images, 16),
        lambda images: images[:, :, ::8, ::8],
        4.0,
        keep_images=True,
        progress=shown,
    )
    for bank in encoder.parts():
        views.with_estimated_depth(bank, DepthEstimator(DepthSettings((8, 8), 1)), "cpu", shown)
    said = capsys.readouterr().err
    assert ("encode corridor" in said) is ("estimate depth" in said) is shown
