"""NWM's image transform against its description, step by step with Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from come_nav.world_model.images import ImageSettings, images_from_rgb


def official(rgb: np.ndarray, size: int) -> torch.Tensor:
    """Crop to 4:3 about the centre, black where the image is too narrow, squash, scale to [-1, 1]."""
    height, width = rgb.shape[:2]
    rows, columns = (height, int(height * (4 / 3))) if width > height else (int(width / (4 / 3)), width)
    left = round((max(width, columns) - columns) / 2)
    canvas = Image.new("RGB", (max(width, columns), height))
    canvas.paste(Image.fromarray(rgb), (max(columns - width, 0) // 2, 0))
    top = round((height - rows) / 2)
    window = canvas.crop((left, top, left + columns, top + rows))
    values = np.asarray(window.resize((size, size), Image.Resampling.BILINEAR), np.float32) / 255
    return torch.from_numpy((values - 0.5) / 0.5).permute(2, 0, 1)


@pytest.mark.parametrize("shape", [(240, 320), (120, 160), (360, 640), (90, 100), (480, 360), (64, 64), (75, 101)])
def test_transform_is_exact_for_every_aspect(shape: tuple[int, int]) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = images_from_rgb([rgb], 56, 4 / 3, "nwm")[0]
    torch.testing.assert_close(found, official(rgb, 56), rtol=0, atol=1e-6)


def test_an_image_between_square_and_4_to_3_is_filled_up_with_black() -> None:
    rgb = np.full((90, 100, 3), 255, np.uint8)
    found = images_from_rgb([rgb], 24, 4 / 3, "nwm")[0]
    assert found[:, :, 0].max() == -1.0
    assert found[:, :, -1].max() == -1.0
    assert found[:, :, 12].min() == 1.0
    assert images_from_rgb([rgb], 24, 4 / 3)[0].min() > 0.999  # come_nav's own crop stays inside


def test_both_crops_agree_on_4_to_3_up_to_rounding() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    inside, nwm = (images_from_rgb([rgb], 28, 4 / 3, crop)[0] for crop in ("inside", "nwm"))
    assert (inside - nwm).abs().max() <= 2.0 / 255.0 * 1.01


def test_settings_know_both() -> None:
    assert ImageSettings(crop="nwm").crop == "nwm"
    assert ImageSettings().crop == "inside"
