"""Distances of images as people see them: LPIPS, DreamSim and FID, by their own libraries (``[perceptual]``).

Nothing is imported, and nothing downloaded, before a distance is asked for by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from come_nav.core.checks import check_choice, check_shape
from come_nav.core.errors import DataError, MissingDependencyError

PAIR_DISTANCES = ("lpips", "dreamsim")
# images (B, 3, H, W) and references of the same shape, both in [-1, 1] -> (B,), lower is nearer
Distance = Callable[[Tensor, Tensor], Tensor]
WITHOUT = "(the latent distance does without)"
DREAMSIM_SIZE = 224


def pair_distance(name: str, device: torch.device | str = "cpu") -> Distance:
    """Return a perceptual distance.

    Args:
        name: "lpips" (Zhang et al. 2018, AlexNet, as NWM uses it) or "dreamsim" (Fu et al. 2023, its ensemble).
        device: where it runs.

    Raises:
        MissingDependencyError: its library is not installed.
        DataError: its weights are not here and cannot be downloaded.
    """
    check_choice("distance", name, PAIR_DISTANCES)
    return _lpips(device) if name == "lpips" else _dreamsim(device)


class FrechetDistance:
    """FID between two sets of images (Heusel et al. 2017), by torchmetrics.

    Args:
        device: where it runs.
        features: network from images (B, 3, H, W) to features (B, D); Inception's 2048 by default.
    """

    def __init__(self, device: torch.device | str = "cpu", features: torch.nn.Module | None = None) -> None:
        module = _library("torchmetrics.image.fid", "torchmetrics", "FID")
        arguments: dict[str, Any] = {"normalize": True}
        if features is not None:
            arguments["feature"] = features
        self._metric = _build("FID", "torch-fidelity", lambda: module.FrechetInceptionDistance(**arguments).to(device))
        self._device = device

    @torch.no_grad()
    def add(self, images: Tensor, real: bool) -> None:
        """Count images (B, 3, H, W) in [-1, 1]."""
        check_shape("images", images, "B 3 H W")
        self._metric.update(((images + 1.0) / 2.0).clamp(0.0, 1.0).to(self._device), real=real)

    def value(self) -> float:
        """Return the distance; NaN with fewer than two images on a side."""
        if min(int(self._metric.real_features_num_samples), int(self._metric.fake_features_num_samples)) < 2:
            return float("nan")
        return float(self._metric.compute())


def _lpips(device: torch.device | str) -> Distance:
    library = _library("lpips", "lpips", "LPIPS")
    network = _build("LPIPS", "lpips", lambda: library.LPIPS(net="alex", verbose=False).eval().to(device))

    @torch.no_grad()
    def distance(images: Tensor, references: Tensor) -> Tensor:
        values: Tensor = network(images.float().to(device), references.float().to(device))
        return values.flatten()

    return distance


def _dreamsim(device: torch.device | str) -> Distance:
    library = _library("dreamsim", "dreamsim", "DreamSim")
    network, _ = _build("DreamSim", "dreamsim", lambda: library.dreamsim(pretrained=True, device=str(device)))

    @torch.no_grad()
    def distance(images: Tensor, references: Tensor) -> Tensor:
        values: Tensor = network(_dreamsim_input(images).to(device), _dreamsim_input(references).to(device))
        return values.flatten()

    return distance


def _dreamsim_input(images: Tensor) -> Tensor:
    """Bring images in [-1, 1] to [0, 1] and the size that its backbones take."""
    unit = ((images.float() + 1.0) / 2.0).clamp(0.0, 1.0)
    if unit.shape[-2:] == (DREAMSIM_SIZE, DREAMSIM_SIZE):
        return unit
    size = (DREAMSIM_SIZE, DREAMSIM_SIZE)
    return torch.nn.functional.interpolate(unit, size, mode="bicubic", antialias=True).clamp(0.0, 1.0)


def _library(module: str, package: str, purpose: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(package, "perceptual", f"{purpose} {WITHOUT}") from error
    except Exception as error:  # a torchvision built for another torch raises RuntimeError while it is imported
        raise DataError(
            f"{purpose}: the library '{module}' cannot be loaded ({_reason(error)}); install the torchvision that "
            f"belongs to torch {torch.__version__} {WITHOUT}"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__


def _build(purpose: str, package: str, make: Callable[[], Any]) -> Any:
    """Build a network that may want to download its weights."""
    try:
        return make()
    except ModuleNotFoundError as error:
        raise MissingDependencyError(package, "perceptual", f"{purpose} {WITHOUT}") from error
    except Exception as error:  # whatever the libraries raise without network or cache
        raise DataError(
            f"{purpose}: its weights are not here and cannot be downloaded ({_reason(error)}); run it once with a "
            f"network {WITHOUT}"
        ) from error
