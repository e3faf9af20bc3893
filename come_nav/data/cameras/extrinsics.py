"""Where the camera sits on the robot, for each frame where it moves, and poses of other bodies carried to base_link."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from come_nav.core.geometry import se3
from come_nav.data.bags.bag import Bag
from come_nav.data.bags.poses import PoseTrack
from come_nav.data.bags.transforms import BASE_FRAMES, TransformTree, edge_at, matrices, read_tree
from come_nav.data.cameras.frames import frame_matches, is_optical, level_world, optical_extrinsics

STILL_M, STILL_RAD = 1e-3, 2e-3  # edges of /tf that move less than this are fixed

Transforms = NDArray[np.float64]


@dataclass(frozen=True)
class Body:
    """The frame that the poses are of, and where it lies on the robot.

    Attributes:
        track: poses of the robot's base.
        T_base_body: (4, 4) of the frame ``track.body_frame`` in the base that the poses are of.
    """

    track: PoseTrack
    T_base_body: Transforms


def pose_of_base(track: PoseTrack, tree: TransformTree, base_frame: str | None, warnings: list[str]) -> Body:
    """Return the poses as those of a body with x forward and z up.

    Poses of another frame than the base (a camera's, an IMU's) are carried over by /tf; those of an optical frame that
    /tf does not know are turned.
    """
    body, identity = track.body_frame, np.eye(4)
    bases = (base_frame,) if base_frame else _bases_of(tree, body)
    if base_frame != body and (base_frame or not any(frame_matches(body, known) for known in BASE_FRAMES)):
        for base in bases:
            T_base_body = tree.lookup(base, body) if base != body else None
            if T_base_body is not None:
                warnings.append(f"poses are of {body}; /tf carries them to {base}")
                moved = track.T_world_body @ se3.inverse(T_base_body)
                return _levelled(replace(track, T_world_body=moved, body_frame=base), identity, warnings)
        if is_optical(body):
            warnings.append(f"poses are of {body}, which /tf does not place on the robot; it is turned to x forward")
            T_base_body = se3.make_transform(se3.R_BODY_OPTICAL, np.zeros(3))
            moved = track.T_world_body @ se3.inverse(T_base_body)
            return _levelled(replace(track, T_world_body=moved), T_base_body, warnings)
    return _levelled(track, identity, warnings)


def _levelled(track: PoseTrack, T_base_body: Transforms, warnings: list[str]) -> Body:
    level = level_world(track.T_world_body, track.world_frame, warnings)
    return Body(replace(track, T_world_body=level), T_base_body)


def _bases_of(tree: TransformTree, body: str) -> tuple[str, ...]:
    """Return the base frames above a body in the tree, or else all of them."""
    frames = [frame for frame in tree.chain_up(body) if any(frame_matches(frame, known) for known in BASE_FRAMES)]
    return tuple(frames) or BASE_FRAMES


def camera_extrinsics(
    bag: Bag,
    tf_topics: Collection[str],
    tree: TransformTree,
    body: Body,
    camera_frame: str,
    stamps_ns: NDArray[np.int64],
    warnings: list[str],
    *,
    believed: bool = False,
) -> Transforms | None:
    """Return T_base_camera (4, 4), or (N, 4, 4) at the stamps (N,) where the camera moves on the robot.

    None without transforms; a tree that does not connect the frames is told as well.

    Args:
        bag: is read once more where transforms on the way to the camera may move.
        tf_topics: that carry transforms.
        tree: the first transforms of each frame.
        body: of :func:`pose_of_base`.
        camera_frame: of the images.
        stamps_ns: of the frames.
        warnings: notes are appended.
        believed: the user named the optical frame; its axes are not doubted.
    """
    own = body.track.body_frame
    found = next((base for base in (own, *BASE_FRAMES) if tree.edges_between(base, camera_frame) is not None), None)
    if found is None or (not tree.parents and found != camera_frame):
        if tree.parents:
            warnings.append(f"/tf does not connect {own} to {camera_frame}; the camera's pose is unknown")
        return None
    if not tree.parents and np.allclose(body.T_base_body, np.eye(4)):
        return None
    edges = tree.edges_between(found, camera_frame) or []
    _tell_updates(tree, edges, warnings)
    T_base_camera = body.T_base_body @ _at(bag, tf_topics, tree, (found, camera_frame), stamps_ns, warnings)
    return T_base_camera if believed else optical_extrinsics(T_base_camera, camera_frame, warnings)


def _tell_updates(tree: TransformTree, edges: list[str], warnings: list[str]) -> None:
    for child in edges:
        if child in tree.updated:
            warnings.append(f"/tf_static: {child} was published with several transforms; the newest counts")


def _at(
    bag: Bag,
    tf_topics: Collection[str],
    tree: TransformTree,
    frames: tuple[str, str],
    stamps_ns: NDArray[np.int64],
    warnings: list[str],
) -> Transforms:
    """Return the transform between two connected frames: one, or one for each stamp where an edge moves."""
    edges = tree.edges_between(*frames) or []
    fixed = tree.lookup(*frames)
    assert fixed is not None
    movable = [child for child in edges if child not in tree.static]
    if not movable:
        return fixed
    whole = read_tree(bag, tf_topics, edges)
    moving = [child for child in movable if _moves(whole, child)]
    if not moving:
        return fixed
    warnings.append(f"the camera moves on the robot ({', '.join(moving)}); its pose is taken for each frame")
    up = [whole.chain_up(frame) for frame in frames]
    common = next(frame for frame in up[0] if frame in up[1])
    chains = [chain[: chain.index(common)] for chain in up]
    stamps = [int(stamp) for stamp in stamps_ns]
    T_common = [np.eye(4)[None], np.eye(4)[None]]
    for side, chain in enumerate(chains):
        for child in chain:
            T_common[side] = edge_at(whole, child, stamps) @ T_common[side]
    found: Transforms = se3.relative(T_common[0], T_common[1])
    return found


def _moves(tree: TransformTree, child: str) -> bool:
    rows = matrices(tree.rows[child])
    if len(rows) < 2 or child in tree.static:
        return False
    away = se3.relative(rows[:1], rows)
    far = np.linalg.norm(away[:, :3, 3], axis=1).max() > STILL_M
    return bool(far or se3.rotation_angle(away[:, :3, :3]).max() > STILL_RAD)
