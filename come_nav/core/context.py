"""What a world model's experts may look at: context frames, and what is known besides them, in typed fields."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar, cast

from come_nav.core.checks import check_shape
from come_nav.core.errors import ShapeError

if TYPE_CHECKING:
    import torch

PartT = TypeVar("PartT")


class ViewSource(Enum):
    """What a view from a target's pose was rendered from."""

    CONTEXT = "the context frames"
    LONGER = "the context frames and a longer past"
    MEMORY = "the context frames, a longer past, and the spatial memory where nothing else is known"


@dataclass(frozen=True)
class PointSet:
    """Coloured points around the robot.

    Attributes:
        xyz: (B, N, 3) metres in the base of the newest context frame.
        rgb: (B, N, 3) in [-1, 1].
        facts: (B, N, 2) age in s, and how far the depth is to be trusted (1 measured, less estimated), for networks
            that are told; None for others.
    """

    xyz: torch.Tensor
    rgb: torch.Tensor
    facts: torch.Tensor | None = None

    def repeated(self, count: int) -> PointSet:
        """Return every row ``count`` times, side by side."""
        return _mapped(self, lambda own: own.repeat_interleave(count, 0))


@dataclass(frozen=True)
class OlderFrames:
    """Frames before the context, oldest first, for networks with ``older_frames``.

    Attributes:
        latents: (B, N, C, h, w).
        poses_xyyaw: (B, N, 3) in the base of the newest context frame.
        frame_offsets: (B, N) protocol frames before it, < 0.
        known: (B, N) bool, which of them are there.
    """

    latents: torch.Tensor
    poses_xyyaw: torch.Tensor
    frame_offsets: torch.Tensor
    known: torch.Tensor


@dataclass(frozen=True)
class ContextViews:
    """What each source shows from the targets, as the extra channels of a network take it; None where not rendered.

    Networks with one view for all sources get them laid over one another, networks with ``view_groups`` each by itself.

    Attributes:
        context: (S, E, h, w) of the context frames; within one batch of passes, what each row is to look at.
        longer: (S, E, h, w) of a longer past: with the context's over it, or by itself.
        memory: (S, E, h, w) of the spatial memory: with the others over it, or by itself.
        shown: (S, 3) bool, which of the three each row of a network with ``view_groups`` looks at.
        latent_memory: (S, M, h, w) what a memory of latents shows, and facts of it.
        camera: (S, 7) of the views, for networks that are told (see come_nav/experts/optional_inputs.py).
        evidence: (S, C + 1, h, w) latents of what the spatial memory alone shows, its holes filled, and the share of
            each cell that it knows; for a likelihood.
    """

    context: torch.Tensor | None = None
    longer: torch.Tensor | None = None
    memory: torch.Tensor | None = None
    shown: torch.Tensor | None = None
    latent_memory: torch.Tensor | None = None
    camera: torch.Tensor | None = None
    evidence: torch.Tensor | None = None

    def of(self, source: ViewSource) -> torch.Tensor | None:
        """Return the view that was rendered from ``source``."""
        if source is ViewSource.CONTEXT:
            return self.context
        return self.longer if source is ViewSource.LONGER else self.memory


@dataclass(frozen=True)
class Context:
    """What the experts may look at, oldest frame first; the newest frame's base_link is the reference frame.

    Rows are windows. A tensor of one row is shared by all of them, however many the others have.

    Attributes:
        latents: (B, T, C, h, w) latents of the context frames.
        poses_xyyaw: (B, T, 3) poses of the context frames in the newest frame's base (the last row is zero).
        frame_offsets: (B, T) time of each context frame in protocol frames before the newest (0 for the newest, < 0).
        absolute_pose_xyyaw: (B or 1, 3) pose of the newest frame in the episode's frame (odom), for memories.
        camera: (B or 1, 4) of the frames, in fractions (see :mod:`come_nav.core.geometry.point_rendering`).
        T_base_camera: (B or 1, 4, 4) extrinsics of the newest frame, from which targets are looked at.
        points: what the context frames show, to render views from.
        older_points: what frames before the context show.
        older: frames before the context, for networks that look at them.
        views: rendered from the targets, once they are known; the points are dropped then.

    Raises:
        ShapeError: for shapes that do not agree.
    """

    latents: torch.Tensor
    poses_xyyaw: torch.Tensor
    frame_offsets: torch.Tensor
    absolute_pose_xyyaw: torch.Tensor | None = None
    camera: torch.Tensor | None = None
    T_base_camera: torch.Tensor | None = None
    points: PointSet | None = None
    older_points: PointSet | None = None
    older: OlderFrames | None = None
    views: ContextViews = ContextViews()

    def __post_init__(self) -> None:
        sizes = check_shape("Context.latents", self.latents, "B T C h w")
        check_shape("Context.poses_xyyaw", self.poses_xyyaw, f"{sizes['B']} {sizes['T']} 3")
        check_shape("Context.frame_offsets", self.frame_offsets, f"{sizes['B']} {sizes['T']}")
        if self.absolute_pose_xyyaw is not None:
            check_shape("Context.absolute_pose_xyyaw", self.absolute_pose_xyyaw, "B 3")
        if self.camera is not None:
            check_shape("Context.camera", self.camera, "B 4")
        if self.T_base_camera is not None:
            check_shape("Context.T_base_camera", self.T_base_camera, "B 4 4")

    def __len__(self) -> int:
        return len(self.latents)

    def rows(self, index: slice | torch.Tensor) -> Context:
        """Return some rows; what all rows share stays whole, a context of one row too."""
        return _mapped(self, lambda own: own if len(own) == 1 else own[index])

    def expand(self, batch: int) -> Context:
        """Return a view of a single-window context repeated for ``batch`` candidates (no copy)."""
        return _mapped(self, lambda own: own.expand(batch, *own.shape[1:]))

    def repeated(self, count: int) -> Context:
        """Return every row ``count`` times, side by side; what many rows share stays shared."""
        alone = len(self) == 1
        return _mapped(self, lambda own: own.repeat_interleave(count, 0) if alone or len(own) > 1 else own)

    def tiled(self, count: int) -> Context:
        """Return ``count`` copies of all rows behind one another; what all rows share stays shared."""
        return _mapped(self, lambda own: own if len(own) == 1 else own.repeat(count, *[1] * (own.ndim - 1)))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Context:
        """Return the context on another device, and as numbers of another type where one is given."""
        return _mapped(self, lambda own: own.to(device=device, dtype=dtype if own.is_floating_point() else None))

    def with_views(self, views: ContextViews) -> Context:
        """Return the context with views in place of the points and the camera that they were rendered with."""
        return replace(self, points=None, older_points=None, camera=None, T_base_camera=None, views=views)

    @classmethod
    def joined(cls, contexts: Sequence[Context]) -> Context:
        """Return contexts that hold the same fields as one; raise ShapeError where they do not."""
        return cast(Context, _joined(contexts, "Context"))


def _mapped(part: PartT, function: Callable[[torch.Tensor], torch.Tensor]) -> PartT:
    """Return a part of a context with ``function`` of every tensor in it."""
    if part is None:
        return part
    if is_dataclass(part) and not isinstance(part, type):
        own = {field.name: _mapped(getattr(part, field.name), function) for field in fields(part)}
        return cast(PartT, replace(part, **own))
    return cast(PartT, function(cast("torch.Tensor", part)))


def _joined(parts: Sequence[Any], name: str) -> Any:
    """Return one part of several contexts, row behind row."""
    import torch  # the nouns of core are read without it

    first = parts[0]
    missing = [part is None for part in parts]
    if all(missing):
        return None
    if any(missing):
        raise ShapeError(f"contexts to be joined must all have {name} or none of them; {sum(missing)} have none")
    if is_dataclass(first) and not isinstance(first, type):
        own = {
            field.name: _joined([getattr(part, field.name) for part in parts], f"{name}.{field.name}")
            for field in fields(first)
        }
        return replace(first, **own)
    return torch.cat(list(parts))
