"""Camera images to the model's: centre crop to its aspect, resize to its square, scale to [-1, 1]; and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, interpolate

from come_nav.core.checks import check_choice, check_range, check_shape
from come_nav.core.errors import ShapeError
from come_nav.core.geometry.point_rendering import camera_fractions
from come_nav.core.types import CameraIntrinsics, Frame


@dataclass(frozen=True)
class ImageSettings:
    """Facts of the camera that a model was trained on.

    Attributes:
        aspect: width over height of the part of a camera image that is used before it is squashed to the model's
            square: 1 for the built-in camera, 4/3 for NWM.
        horizontal_fov_deg: of that part; 0 = various or unknown.
        camera_height_m: above the ground; 0 = various or unknown.
        crop: "inside" takes the largest window of ``aspect``; "nwm" follows NWM's transform to the pixel, which keeps
            the full height of a landscape image and fills up with black where that is too narrow.
    """

    aspect: float = 1.0
    horizontal_fov_deg: float = 90.0
    camera_height_m: float = 0.5
    crop: Literal["inside", "nwm"] = "inside"

    def __post_init__(self) -> None:
        check_range("images.aspect", self.aspect, 0.1, 10.0)
        check_range("images.horizontal_fov_deg", self.horizontal_fov_deg, 0.0, 180.0)
        check_range("images.camera_height_m", self.camera_height_m, 0.0)
        check_choice("images.crop", self.crop, ("inside", "nwm"))

    def camera(self) -> Tensor:
        """Return fx, fy, cx, cy (1, 4) as fractions of the square; 90 degrees where the field of view is unknown."""
        focal = 0.5 / math.tan(0.5 * math.radians(self.horizontal_fov_deg or 90.0))
        return torch.tensor([[focal, focal * self.aspect, 0.5, 0.5]])


def camera_of_frame(intrinsics: CameraIntrinsics | None, aspect: float) -> Tensor | None:
    """Return fx, fy, cx, cy (1, 4) as fractions of the window that :func:`images_from_rgb` cuts; None if unknown."""
    if intrinsics is None:
        return None
    top, left, rows, columns = crop_window(intrinsics.height, intrinsics.width, aspect)
    return camera_fractions(intrinsics.cropped(left, top, columns, rows))


def extrinsics_of(frames: Sequence[Frame]) -> Tensor | None:
    """Return T_base_camera (T, 4, 4) of each frame; None where one does not tell."""
    extrinsics = [frame.T_base_camera for frame in frames]
    known = [torch.from_numpy(own) for own in extrinsics if own is not None]
    return torch.stack(known) if len(known) == len(extrinsics) else None


def crop_window(height: int, width: int, aspect: float) -> tuple[int, int, int, int]:
    """Return top, left, height and width of the largest centred window of ``aspect`` (width over height)."""
    if width > height * aspect:
        rows, columns = height, int(height * aspect)
    else:
        rows, columns = int(width / aspect), width
    return round((height - rows) / 2), round((width - columns) / 2), rows, columns


def cells_touched(mask: NDArray[np.bool_], image_size: int, aspect: float = 1.0) -> NDArray[np.bool_]:
    """Return which pixels (S, S) of the model's image show any of a mask (H, W) of the camera's."""
    top, left, rows, columns = crop_window(mask.shape[0], mask.shape[1], aspect)
    window = torch.from_numpy(np.ascontiguousarray(mask[top : top + rows, left : left + columns])).float()[None]
    touched: NDArray[np.bool_] = (adaptive_max_pool2d(window, (image_size, image_size))[0] > 0).numpy()
    return touched


def images_from_rgb(
    frames: Sequence[NDArray[np.uint8]],
    image_size: int,
    aspect: float = 1.0,
    crop: Literal["inside", "nwm"] = "inside",
) -> Tensor:
    """Return (T, 3, S, S) float32 in [-1, 1] of uint8 RGB images (H, W, 3), each of any size.

    ``aspect`` and ``crop`` are those of :class:`ImageSettings`.

    Raises:
        ShapeError: for no images, or one that is not (H, W, 3) uint8.
    """
    if len(frames) == 0:
        raise ShapeError("images_from_rgb needs at least one image, got none")
    for rgb in frames:
        check_shape("rgb", rgb, "H W 3")
        if rgb.dtype != np.uint8:
            raise ShapeError(f"rgb must be uint8, got {rgb.dtype}")
    convert = _official_image if crop == "nwm" else _image
    return torch.stack([convert(rgb, image_size, aspect) for rgb in frames])


def bytes_from_images(images: Tensor) -> Tensor:
    """Return images in [-1, 1] as uint8 of the same shape."""
    return images.add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def images_from_bytes(stored: Tensor) -> Tensor:
    """Return uint8 images of any shape as float32 in [-1, 1]."""
    return stored.float().div_(127.5).sub_(1.0)


def rgb_from_images(images: Tensor) -> NDArray[np.uint8]:
    """Return uint8 images (B, H, W, 3) of images (B, 3, H, W) in [-1, 1] on any device."""
    rgb: NDArray[np.uint8] = bytes_from_images(images.float()).permute(0, 2, 3, 1).cpu().numpy()
    return rgb


def _official_image(rgb: NDArray[np.uint8], image_size: int, aspect: float) -> Tensor:
    """Crop, squash and scale as NWM's evaluation does: by Pillow, whose pixels are whole numbers after the resize."""
    from PIL import Image

    height, width = rgb.shape[:2]
    rows, columns = (height, int(height * aspect)) if width > height else (int(width / aspect), width)
    missing = max(columns - width, 0)
    padded = np.pad(rgb, ((0, 0), (missing // 2, missing - missing // 2), (0, 0)))
    top, left = round((height - rows) / 2), round((padded.shape[1] - columns) / 2)
    window = np.ascontiguousarray(padded[top : top + rows, left : left + columns])
    square = Image.fromarray(window).resize((image_size, image_size), Image.Resampling.BILINEAR)
    image = torch.from_numpy(np.array(square, np.uint8)).permute(2, 0, 1).float()
    return (image / 255.0 - 0.5) / 0.5


def _image(rgb: NDArray[np.uint8], image_size: int, aspect: float) -> Tensor:
    top, left, rows, columns = crop_window(rgb.shape[0], rgb.shape[1], aspect)
    window = np.ascontiguousarray(rgb[top : top + rows, left : left + columns])
    image = torch.from_numpy(window).permute(2, 0, 1)[None].float()
    if image.shape[-2:] != (image_size, image_size):
        image = interpolate(image, (image_size, image_size), mode="bilinear", antialias=True, align_corners=False)
    return (image[0] / 127.5 - 1.0).clamp(-1.0, 1.0)
