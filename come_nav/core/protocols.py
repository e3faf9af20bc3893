"""The seams between rooms. Letters: B batch, S candidates, T horizon steps, C channels, H W pixels, h w latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from come_nav.core.experts import CompositionMode
from come_nav.core.types import CameraIntrinsics, Context, Frame, Imagination, Odometry, Proposals

if TYPE_CHECKING:
    import torch


@runtime_checkable
class Recording(Protocol):
    """A drive at the protocol rate: poses in memory, frames read on demand (a bag, a folder or a simulated episode).

    Attributes:
        name: short name for tables.
        rate_hz: frames per second.
        stamps_s: (N,) strictly increasing.
        T_odom_base: (N, 4, 4) pose of base_link at each frame.
        poses_xyyaw: (N, 3) the same, planar.
        intrinsics: of the frames, or None when unknown.
        T_base_camera: (4, 4) pose of the optical frame in base_link, or None when unknown.
        metadata: free facts, e.g. ``{"world": 20003}`` for simulated episodes.
    """

    @property
    def name(self) -> str: ...
    @property
    def rate_hz(self) -> float: ...
    @property
    def stamps_s(self) -> NDArray[np.float64]: ...
    @property
    def T_odom_base(self) -> NDArray[np.float64]: ...
    @property
    def poses_xyyaw(self) -> NDArray[np.float64]: ...
    @property
    def intrinsics(self) -> CameraIntrinsics | None: ...
    @property
    def T_base_camera(self) -> NDArray[np.float64] | None: ...
    @property
    def metadata(self) -> dict[str, Any]: ...
    def __len__(self) -> int: ...
    def frame(self, index: int) -> Frame:
        """Return frame ``index``; raise DataError naming the recording and stamp if it cannot be decoded."""
        ...


class Simulator(Protocol):
    """A robot in a world: the built-in simulator, Habitat, or any other."""

    @property
    def time_s(self) -> float: ...
    @property
    def pose_world_xyyaw(self) -> NDArray[np.float64]:
        """True planar pose (3,)."""
        ...

    def reset(self, pose_world_xyyaw: NDArray[np.float64] | None = None) -> None: ...
    def step(self, v_mps: float, w_radps: float, duration_s: float) -> bool:
        """Drive a twist within the robot's limits; return True if the robot collided (it then stands still)."""
        ...

    def observe(self) -> tuple[Frame, Odometry]:
        """Return what the camera sees now and what odometry believes."""
        ...


class ViewRenderer(Protocol):
    """Renders what a camera on the robot would see from planar poses: the simulator as a perfect world model."""

    def render(self, poses_world_xyyaw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images (B, 3, H, W) in [-1, 1] and depth (B, H, W) in metres for poses (B, 3)."""
        ...


class SpatialSource(Protocol):
    """Shows what a spatial memory knows of views, as the world model's camera would see it."""

    def views(
        self, poses_odom_xyyaw: torch.Tensor, image_size: int, T_base_camera: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return what is remembered of the views from base_link's poses (S, 3) in odom.

        ``T_base_camera`` (S or 1, 4, 4) is where the camera is mounted; the source's own extrinsics by default.

        Returns:
            image (S, 3, H, W) in [-1, 1], arbitrary where nothing is known; known (S, H, W) bool; inverse depth
            (S, H, W) 1/m, zero where unknown. All on the device of the poses.
        """
        ...


@runtime_checkable
class LatentSpatialSource(Protocol):
    """A :class:`SpatialSource` that remembers latents, and shows them without rendering and encoding pixels."""

    def latent_views(
        self, poses_odom_xyyaw: torch.Tensor, latent_size: int, T_base_camera: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return what is remembered of the latents of views from base_link's poses (S, 3) in odom.

        Returns:
            scaled latents (S, C, h, w), arbitrary where nothing is known; known (S, h, w) bool; inverse depth
            (S, h, w) 1/m, zero where unknown. All on the device of the poses.
        """
        ...


@runtime_checkable
class AgedSpatialSource(Protocol):
    """A :class:`SpatialSource` that can tell the age of what it shows."""

    def ages_s(
        self,
        poses_odom_xyyaw: torch.Tensor,
        inverse_depth: torch.Tensor,
        T_base_camera: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return how long ago what ``views`` showed, of that inverse depth, was looked at: (S, H, W) s."""
        ...


class CoarseSpatialSource(Protocol):
    """A :class:`SpatialSource` that can show a coarser memory at less cost."""

    def views(
        self,
        poses_odom_xyyaw: torch.Tensor,
        image_size: int,
        T_base_camera: torch.Tensor | None = None,
        cell_m: float = 0.0,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return what SpatialSource returns, of points merged in cells of edge ``cell_m``, m; 0 = as they are."""
        ...


class SequenceState(Protocol):
    """What a network keeps of the frames of a sequence; opaque to whoever holds it."""

    @property
    def frames(self) -> int:
        """How many frames were seen."""
        ...

    @property
    def size_bytes(self) -> int:
        """Bytes of it."""
        ...


StateT = TypeVar("StateT", bound=SequenceState)
StateT_co = TypeVar("StateT_co", bound=SequenceState, covariant=True)


class SequenceObserver(Protocol[StateT]):
    """A network whose state is its memory: it is shown frame after frame, and never again what it was shown."""

    def start(self) -> StateT:
        """Return the state before the first frame."""
        ...

    def observed(
        self, state: StateT, latents: torch.Tensor, pose_xyyaw: torch.Tensor, action_xyyaw: torch.Tensor
    ) -> StateT:
        """Return the state after one more frame.

        Args:
            state: before it.
            latents: (C, h, w) of the frame.
            pose_xyyaw: (3,) of base_link in that of the sequence's first frame, m and rad.
            action_xyyaw: (3,) of base_link in that of the frame before; zero for the first.
        """
        ...


class SequenceSource(Protocol[StateT_co]):
    """The state of the sequence that was seen, and where its newest frame is."""

    @property
    def state(self) -> StateT_co:
        """The network's state."""
        ...

    @property
    def newest_xyyaw(self) -> torch.Tensor:
        """(3,) pose of the newest frame in that of the first one; zero before there is any."""
        ...


class Expert(Protocol):
    """One denoiser, conditioned on one memory."""

    def scores(
        self, x_t: torch.Tensor, t: torch.Tensor, context: Context, action: torch.Tensor, rel_time: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (eps, eps_bar), both (B, C, h, w), for x_t (B, C, h, w) at diffusion steps t (B,).

        ``action`` (B, 3) is the target pose (dx m, dy m, dyaw rad) in the newest context frame's base; ``rel_time``
        (B,) is the target's time after that frame in protocol frames. Normalisation happens inside the expert.
        """
        ...


class WorldModel(Protocol):
    """Imagines latents of a camera view at another pose and time."""

    @property
    def image_size(self) -> int: ...
    @property
    def context_frames(self) -> int: ...
    @property
    def rate_hz(self) -> float: ...

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) in [-1, 1] -> scaled latents (B, C, h, w)."""
        ...

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> images (B, 3, H, W) in [-1, 1]."""
        ...

    def predict(
        self, context: Context, actions_xyyaw: torch.Tensor, rel_frames: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Jump: latents (S, C, h, w) at poses (S, 3) in the newest context frame's base, ``rel_frames`` (S,) later.

        ``context`` has batch 1 (shared by all candidates) or S.
        """
        ...

    def rollout(
        self, context: Context, poses_xyyaw: torch.Tensor, generator: torch.Generator, stride: int = 1
    ) -> torch.Tensor:
        """Autoregressive: latents (S, T // stride, C, h, w) along poses (S, T, 3), one frame per step of ``stride``."""
        ...


@runtime_checkable
class ExpertModel(Protocol):
    """A world model that composes experts of memories; their names are those of :mod:`come_nav.core.experts`."""

    @property
    def supported_experts(self) -> frozenset[str]:
        """Experts that this model can have, given their memories."""
        ...

    def with_memory(self, spatial: SpatialSource | None = None, long_term: Expert | None = None) -> ExpertModel:
        """Return a model of the same weights whose experts look at the given memories too.

        Raises:
            ConfigError: for a memory whose expert is not among ``supported_experts``.
        """
        ...

    def composed(self, weights: Mapping[str, float], mode: CompositionMode | None = None) -> ExpertModel:
        """Return the product of the experts that ``weights`` names; the base counts even with weight 0.

        Raises:
            ConfigError: for an expert that this model was not given.
        """
        ...


class Imaginer(Protocol):
    """What the planner needs of a world model: a context is already bound in."""

    def imagine(self, poses_xyyaw: torch.Tensor, generator: torch.Generator) -> Imagination:
        """Imagine the view at the end of each candidate (S, T, 3) of poses in the start frame."""
        ...


@runtime_checkable
class RoughImaginer(Imaginer, Protocol):
    """An imaginer that can say at little cost roughly what candidates lead to, to leave out those that cannot win."""

    def rough(self, poses_xyyaw: torch.Tensor) -> Imagination | None:
        """Return a rough view at the end of each candidate (S, T, 3); None where there is no cheap one."""
        ...


class Objective(Protocol):
    """One term of the planner's cost. ``needs_view`` tells whether the term looks at imagined images."""

    @property
    def name(self) -> str: ...
    @property
    def needs_view(self) -> bool: ...
    def __call__(self, imagination: Imagination) -> torch.Tensor:
        """Return costs (S,), lower is better; +inf rejects a candidate, e.g. one in collision."""
        ...


class Policy(Protocol):
    """A learned planner: paths from images alone, without imagining where they lead."""

    @property
    def name(self) -> str: ...
    @property
    def frames(self) -> int:
        """Images that it looks at, the newest one among them; where fewer are there, the oldest counts for them."""
        ...

    def propose(
        self,
        context: Sequence[NDArray[np.uint8]],
        goal: NDArray[np.uint8] | None,
        count: int,
        generator: torch.Generator,
    ) -> Proposals:
        """Return up to ``count`` paths from the newest of the ``context``'s images (H, W, 3), oldest first.

        ``goal`` is the image (H, W, 3) of where to; None explores.

        Raises:
            ConfigError: without a goal, where it cannot do without.
        """
        ...

    def distances_frames(
        self, context: Sequence[NDArray[np.uint8]], goals: Sequence[NDArray[np.uint8]]
    ) -> NDArray[np.float64]:
        """Return how far each of the goals' images (H, W, 3) is taken to be, in protocol frames (G,)."""
        ...
