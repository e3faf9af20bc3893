"""Which key frames may show the same place as an image: one compact descriptor each, compared at once.

VLAD (Jegou et al. 2010) over the features that registration uses anyway: for each visual word the sum of the
residuals of the features nearest to it, normalised within the word and as a whole (Arandjelovic and Zisserman 2013),
then projected to fewer dimensions by a fixed random projection. The vocabulary is trained on the episode itself, from
its first key frames, and anew each time their number has grown fourfold up to a limit: nothing is downloaded, and the
cost stays bounded.

Cost on one core: about 3 ms to describe an image and to find the candidates among 1,000 key frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.checks import check_range, check_shape
from come_nav.core.errors import ShapeError
from come_nav.core.growing import GrowingRows
from come_nav.localisation.features import Features, extract_features

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PlaceSettings:
    """How places are told apart.

    Attributes:
        words: of the vocabulary, >= 2.
        dimensions: of a key frame's descriptor, >= 8.
        first_training: key frames at which the first vocabulary is trained, >= 1; before that all are candidates.
        last_training: key frames beyond which none is trained any more, >= 1.
        sample: features that a vocabulary is trained on at most, >= 64.
        rounds: of k-means, >= 1.
    """

    words: int = 48
    dimensions: int = 1024
    first_training: int = 12
    last_training: int = 800
    sample: int = 12000
    rounds: int = 8

    def __post_init__(self) -> None:
        check_range("places.words", self.words, 2)
        check_range("places.dimensions", self.dimensions, 8)
        check_range("places.sample", self.sample, 64)
        for name in ("first_training", "last_training", "rounds"):
            check_range(f"places.{name}", getattr(self, name), 1)


class PlaceIndex:
    """Descriptors of key frames, all of one kind of features. Keys are the caller's; features are not kept here."""

    def __init__(self, config: PlaceSettings | None = None, seed: int = 0) -> None:
        import torch

        self.config = config or PlaceSettings()
        self._generator = torch.Generator().manual_seed(seed)
        self._words: NDArray[np.float32] | None = None
        self._projection: NDArray[np.float32] | None = None
        self._trained_on = 0
        self._kind: str | None = None
        self._noise_state: NDArray[np.uint8] = np.zeros(0, np.uint8)  # of the generator, before the projection
        self._table = GrowingRows((self.config.dimensions,), np.float32)
        self._empty = GrowingRows((), np.bool_)

    def __len__(self) -> int:
        return len(self._table)

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self._table.nbytes

    def due(self) -> bool:
        """Whether enough key frames have come for a better vocabulary; then call :meth:`train` with all of them."""
        if self._words is None:
            return len(self) >= self.config.first_training
        return self._trained_on * 4 <= len(self) <= self.config.last_training

    def train(self, frames: list[Features]) -> None:
        """Train the vocabulary on key frames and describe all of them anew; they become rows 0, 1, ..."""
        share = max(1, self.config.sample // max(1, len(frames)))
        parts = [frame.vectors()[:share] for frame in frames if len(frame)]
        if not parts:
            return
        self._words = _k_means(np.concatenate(parts), self.config.words, self.config.rounds, self._generator)
        self._noise_state = self._generator.get_state().numpy().copy()
        self._project()
        self._trained_on = len(frames)
        self._describe_all(frames)

    def add(self, features: Features) -> int:
        """Add a key frame and return its row.

        Raises:
            ShapeError: for features of another kind than the key frames before have.
        """
        self._kind = self._kind or features.kind
        self._empty.append(not len(features))
        return self._table.append(self.describe(features))

    def forget(self, row: int) -> None:
        """Take it that a key frame has no features any more: it is a candidate for nothing, and its row stays."""
        self._table.rows[row], self._empty.rows[row] = 0.0, True

    def vocabulary(self) -> dict[str, NDArray[Any]]:
        """Return what :meth:`restore` needs beside the key frames' features; empty before the first training."""
        if self._words is None:
            return {}
        trained = {"words": self._words, "noise_state": self._noise_state, "trained_on": np.array(self._trained_on)}
        return {name: np.array(values) for name, values in trained.items()}

    def restore(self, vocabulary: Mapping[str, NDArray[Any]], frames: list[Features]) -> None:
        """Take a vocabulary from before, and describe key frames by it; they become rows 0, 1, ...

        Raises:
            ShapeError: for a vocabulary that is none.
        """
        import torch

        if vocabulary:
            check_shape("words", vocabulary["words"], "W D")
            self._words = np.array(vocabulary["words"], np.float32)
            self._noise_state = np.array(vocabulary["noise_state"], np.uint8)
            self._trained_on = int(vocabulary["trained_on"])
            try:
                self._generator.set_state(torch.from_numpy(self._noise_state.copy()))
            except (RuntimeError, TypeError) as error:
                raise ShapeError(f"the vocabulary's noise_state is none ({str(error).splitlines()[0]})") from error
            self._project()
        self._describe_all(frames)

    def _project(self) -> None:
        """Draw the projection of the present vocabulary."""
        import torch

        assert self._words is not None
        noise = torch.randn(self._words.size, self.config.dimensions, generator=self._generator).numpy()
        self._projection = (noise / np.sqrt(self.config.dimensions)).astype(np.float32)

    def _describe_all(self, frames: list[Features]) -> None:
        self._table.clear()
        self._empty.clear()
        for frame in frames:
            self.add(frame)

    def describe(self, features: Features) -> NDArray[np.float32]:
        """Return the descriptor (D,) of unit length; zeros before the first training and without features.

        Raises:
            ShapeError: for features of another kind than the key frames have.
        """
        if self._kind is not None and features.kind != self._kind:
            raise ShapeError(
                f"features of kind '{features.kind}' cannot be looked for among key frames of kind '{self._kind}'; "
                "extract both alike"
            )
        if self._words is None or self._projection is None or not len(features):
            return np.zeros(self.config.dimensions, np.float32)
        vectors = features.vectors()
        nearest = (vectors @ self._words.T - 0.5 * (self._words**2).sum(1)).argmax(axis=1)
        sums = np.zeros_like(self._words)
        np.add.at(sums, nearest, vectors - self._words[nearest])
        sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-6)
        flat = (sums.ravel() / max(float(np.linalg.norm(sums)), 1e-6)) @ self._projection
        return np.asarray(flat / max(float(np.linalg.norm(flat)), 1e-6), np.float32)

    def candidates(
        self, features: Features, count: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the rows (K,) of the most similar key frames and their similarities (K,), the best first.

        Before the first training all are equally similar, the newest first.
        """
        similar = self._table.rows @ self.describe(features)
        if self._words is None:
            similar = np.linspace(0.0, 1e-3, len(self), dtype=np.float32)
        similar = np.where(self._empty.rows, -np.inf, similar)
        if allowed is not None:
            similar = np.where(allowed, similar, -np.inf)
        order = np.argsort(-similar, kind="stable")[:count]
        order = order[np.isfinite(similar[order])]
        return order.astype(np.int64), similar[order].astype(np.float32)


class RecognisedImages:
    """Images of a list, e.g. the nodes of a topological map, told by what they look like, whatever their order."""

    def __init__(self, images_rgb: Sequence[NDArray[np.uint8]], seed: int = 0) -> None:
        """Take the images (H, W, 3); the vocabulary is trained on them all."""
        known = [extract_features(image) for image in images_rgb]
        self._index = PlaceIndex(PlaceSettings(first_training=1), seed)
        self._index.train(known)

    def most_similar(self, image_rgb: NDArray[np.uint8]) -> tuple[int | None, float]:
        """Return the number of the image that looks most like one (H, W, 3), and the cosine of their descriptors.

        None where either has no features.
        """
        features = extract_features(image_rgb)
        if not len(self._index) or not len(features):
            return None, 0.0
        rows, similarities = self._index.candidates(features, 1)
        return int(rows[0]), float(similarities[0])


def _k_means(vectors: NDArray[np.float32], count: int, rounds: int, generator: torch.Generator) -> NDArray[np.float32]:
    """Return cluster centres (at most ``count``, D) by Lloyd's iterations from vectors drawn at random."""
    import torch

    drawn = torch.randperm(len(vectors), generator=generator)[:count].numpy()
    centres = vectors[drawn].copy()
    for _ in range(rounds):
        nearest = (vectors @ centres.T - 0.5 * (centres**2).sum(1)).argmax(axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, vectors)
        sizes = np.bincount(nearest, minlength=len(centres))[:, None]
        centres = np.where(sizes > 0, sums / np.maximum(sizes, 1), centres).astype(np.float32)
    return np.asarray(centres, np.float32)
