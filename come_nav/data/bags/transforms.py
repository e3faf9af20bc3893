"""Transform trees of /tf and /tf_static: camera extrinsics, and odom -> base_link as a source of poses."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.core.errors import DataError, suggest
from come_nav.core.geometry import se3
from come_nav.data.bags.bag import Bag
from come_nav.data.bags.ros_types import TF_TYPES, stamp_ns
from come_nav.data.cameras.frames import frame_matches, frame_prefix
from come_nav.data.timing.interpolation import interpolate_poses

WORLD_FRAMES = ("odom", "map", "world")
BASE_FRAMES = ("base_link", "base_footprint", "base")

Row = tuple[float, ...]


class TransformTree:
    """All transforms of a bag: child frame -> (parent frame, stamps, rows of x y z qx qy qz qw)."""

    def __init__(self) -> None:
        self.parents: dict[str, str] = {}
        self.stamps_ns: dict[str, list[int]] = {}
        self.log_ns: dict[str, list[int]] = {}
        self.rows: dict[str, list[Row]] = {}
        self.without_stamp: dict[str, int] = {}  # child frame -> transforms whose stamp was zero
        self.static: set[str] = set()
        self.updated: set[str] = set()  # static frames that were published anew with another transform

    def add(
        self, message: Any, is_static: bool, keep_all: bool = True, only: Collection[str] | None = None, log_ns: int = 0
    ) -> None:
        """Take the transforms of a decoded TFMessage.

        The newest static transform of a frame counts, as in tf2. Of moving ones with ``keep_all`` False the first
        is kept; ``only`` names the child frames to take.
        ``log_ns`` stands in for stamps of zero, as of every other topic.
        """
        for item in message.transforms:
            child, parent = item.child_frame_id.lstrip("/"), item.header.frame_id.lstrip("/")
            if only is not None and child not in only:
                continue
            if is_static:
                self._forget_older(child, parent, item.transform)
            elif child in self.rows and not keep_all:
                continue
            offset, quat = item.transform.translation, item.transform.rotation
            self.parents[child] = parent
            own_ns = stamp_ns(item.header.stamp)
            self.without_stamp[child] = self.without_stamp.get(child, 0) + (own_ns == 0)
            self.stamps_ns.setdefault(child, []).append(own_ns or log_ns)
            self.log_ns.setdefault(child, []).append(log_ns)
            self.rows.setdefault(child, []).append((offset.x, offset.y, offset.z, quat.x, quat.y, quat.z, quat.w))
            if is_static:
                self.static.add(child)

    def _forget_older(self, child: str, parent: str, transform: Any) -> None:
        rows = self.rows.pop(child, [])
        self.stamps_ns.pop(child, None)
        self.log_ns.pop(child, None)
        if rows and child in self.static:
            offset, quat = transform.translation, transform.rotation
            newest = (offset.x, offset.y, offset.z, quat.x, quat.y, quat.z, quat.w)
            if self.parents[child] != parent or not np.allclose(rows[0], newest, atol=1e-6):
                self.updated.add(child)

    def edges_between(self, target: str, source: str) -> list[str] | None:
        """Return the child frames of all edges between two frames, None if not connected."""
        up_target, up_source = self.chain_up(target.lstrip("/")), self.chain_up(source.lstrip("/"))
        common = next((frame for frame in up_target if frame in up_source), None)
        if common is None:
            return None
        return [*up_target[: up_target.index(common)], *up_source[: up_source.index(common)]]

    def chain_up(self, frame: str) -> list[str]:
        """Return ``frame`` and its ancestors, nearest first."""
        chain = [frame]
        while chain[-1] in self.parents and self.parents[chain[-1]] not in chain:
            chain.append(self.parents[chain[-1]])
        return chain

    def lookup(self, target: str, source: str) -> NDArray[np.float64] | None:
        """Return T_target_source (4, 4) from the first transform of every edge between them, None if not connected."""
        up_target, up_source = self.chain_up(target.lstrip("/")), self.chain_up(source.lstrip("/"))
        common = next((frame for frame in up_target if frame in up_source), None)
        if common is None:
            return None
        T_common_target = self._compose(up_target[: up_target.index(common)])
        T_common_source = self._compose(up_source[: up_source.index(common)])
        return se3.relative(T_common_target, T_common_source)

    def _compose(self, children: list[str]) -> NDArray[np.float64]:
        result = np.eye(4)
        for child in children:
            result = matrices([self.rows[child][0]])[0] @ result
        return result


def without_stamps(what: str, count: int, total: int) -> str:
    """Return the note on headers without a stamp."""
    return f"{what}: {count} of {total} headers have no stamp (0); the time of recording stands in for it"


def matrices(rows: list[Row]) -> NDArray[np.float64]:
    """Return T (N, 4, 4) of rows x y z qx qy qz qw."""
    values = np.array(rows, float)
    return se3.make_transform(se3.matrix_from_quaternion(values[:, 3:]), values[:, :3])


def is_static_topic(topic: str) -> bool:
    """Tell whether a transform topic is the latched one."""
    return topic.rstrip("/").endswith("tf_static")


def read_tree(bag: Bag, topics: Collection[str], only: Collection[str] | None = None) -> TransformTree:
    """Return all transforms of the named topics, or those of the child frames ``only``."""
    tree = TransformTree()
    for message in bag.messages(topics):
        tree.add(message.decode(), is_static_topic(message.topic), only=only, log_ns=message.log_ns)
    return tree


def read_pose_track(
    bag: Bag,
    world_frame: str | None = None,
    base_frame: str | None = None,
    *,
    topics: Collection[str] | None = None,
    prefix: str = "",
    log_ns: list[int] | None = None,
    warnings: list[str] | None = None,
) -> tuple[list[int], list[Row], tuple[str, str]]:
    """Return stamps, rows and frame names of the robot's pose along /tf.

    The stamps are those of the fastest moving edge between the frames; the other moving edges are interpolated there.

    Args:
        bag: to read.
        world_frame: name in place of odom, map or world.
        base_frame: name in place of base_link, base_footprint or base.
        topics: of transforms; None takes all of the bag.
        prefix: of the robot whose frames are preferred: robot1 for robot1/odom.
        log_ns: takes when each of them was recorded.
        warnings: notes are appended.

    Raises:
        DataError: the frames are not in the tree or not connected.
    """
    names = [name for name, topic in bag.topics.items() if topic.type in TF_TYPES] if topics is None else topics
    tree = read_tree(bag, names)
    frames = set(tree.parents) | set(tree.parents.values())
    base = _pick(base_frame, BASE_FRAMES, frames, bag, ("base", "--base-frame", prefix))
    world = _pick(world_frame, WORLD_FRAMES, frames, bag, ("world", "--odom-frame", prefix or frame_prefix(base)))
    chain = tree.chain_up(base)
    if world not in chain:
        raise DataError(f"{bag.path}: /tf does not connect {base} to {world}; the chain is {' <- '.join(chain)}")
    edges = chain[: chain.index(world)]
    moving = [child for child in edges if child not in tree.static]
    if not moving:
        raise DataError(f"{bag.path}: all transforms between {world} and {base} are static, so they hold no motion")
    fastest = max(moving, key=lambda child: len(tree.rows[child]))
    stamps_ns = tree.stamps_ns[fastest]
    if log_ns is not None:
        log_ns += tree.log_ns[fastest]
    if warnings is not None and tree.without_stamp[fastest]:
        warnings.append(without_stamps(f"/tf, {fastest}", tree.without_stamp[fastest], len(stamps_ns)))
    T_world_base = np.repeat(np.eye(4)[None], len(stamps_ns), axis=0)
    for child in edges:
        T_world_base = edge_at(tree, child, stamps_ns) @ T_world_base
    quats = se3.quaternion_from_matrix(T_world_base[:, :3, :3])
    rows = [tuple(row) for row in np.concatenate([T_world_base[:, :3, 3], quats], axis=1)]
    return stamps_ns, rows, (world, base)


def edge_at(tree: TransformTree, child: str, stamps_ns: list[int]) -> NDArray[np.float64]:
    """Return the transform of one edge at the stamps (N, 4, 4), interpolated; (1, 4, 4) of one that is fixed."""
    edge = matrices(tree.rows[child])
    if child in tree.static or len(edge) == 1:
        return edge[:1]
    own_ns, first = np.unique(np.array(tree.stamps_ns[child], np.int64), return_index=True)
    start = own_ns[0]  # relative seconds keep nanoseconds exact in float64
    return interpolate_poses((own_ns - start) * 1e-9, edge[first], (np.array(stamps_ns, np.int64) - start) * 1e-9)


def _pick(named: str | None, known: tuple[str, ...], frames: set[str], bag: Bag, about: tuple[str, str, str]) -> str:
    """Return the frame that was named, or the first known one: of the robot's prefix, plain, or of any prefix."""
    role, flag, prefix = about
    if named is not None:
        if named not in frames:
            raise DataError(f"{bag.path}: no frame '{named}' in /tf{suggest(named, frames)}")
        return named
    for name in known:
        found = sorted(frame for frame in frames if frame_matches(frame, name))
        own = [frame for frame in found if prefix and frame_prefix(frame) == prefix]
        plain = [frame for frame in found if frame == name]
        if own or plain or found:
            return (own or plain or found)[0]
    raise DataError(
        f"{bag.path}: no {role} frame ({', '.join(known)}) in /tf; name one with {flag}: {', '.join(sorted(frames))}"
    )
