"""Which topics of a bag are the colour camera, its depth, its calibration and the robot's pose."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from come_nav.core.errors import DataError
from come_nav.data.bags.bag import Bag, TopicInfo
from come_nav.data.bags.ros_types import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    IMAGE,
    ODOMETRY,
    POSE_STAMPED,
    POSE_WITH_COVARIANCE,
    TF_TYPES,
)

POSE_TYPES = (ODOMETRY, POSE_WITH_COVARIANCE, POSE_STAMPED, *TF_TYPES)
NO_TOPIC = "none"  # what a user types to leave depth out
DEPTH_WORDS = ("depth", "disparity")
SECONDARY_WORDS = (
    "mono",
    "infra",
    "/ir/",
    "right",
    "rear",
    "back",
    "fisheye",
    "thermal",
    "mask",
    "segment",
    "semantic",
)
TRUTH_WORDS = ("ground_truth", "groundtruth", "truth", "/gt", "mocap", "vicon", "goal", "target", "cmd", "setpoint")


@dataclass(frozen=True)
class TopicChoice:
    """Names of the topics a recording is made of; None where the bag has none such."""

    image: str
    pose: str
    depth: str | None = None
    info: str | None = None


def choose_topics(
    bag: Bag, image: str | None = None, depth: str | None = None, info: str | None = None, pose: str | None = None
) -> TopicChoice:
    """Choose by type and name; a topic that the user named must exist and have a fitting type.

    Raises:
        DataError: no image or no pose in the bag (lists what there is), or a named topic that does not fit.
    """
    image = _named(bag, image, (IMAGE, COMPRESSED_IMAGE), "--image-topic") or find_image(bag)
    pose = _named(bag, pose, POSE_TYPES, "--pose-topic") or find_pose(bag)
    if image is None:
        raise DataError(f"{bag.path}: no colour image topic; the bag holds {_contents(bag)}")
    if pose is None:
        raise DataError(f"{bag.path}: no odometry, pose or /tf topic; the bag holds {_contents(bag)}")
    if depth == NO_TOPIC:
        depth = None
    else:
        depth = _named(bag, depth, (IMAGE, COMPRESSED_IMAGE), "--depth-topic") or find_depth(bag, image)
    info = _named(bag, info, (CAMERA_INFO,), "--info-topic") or find_info(bag, image)
    return TopicChoice(image, pose, depth, info)


def find_image(bag: Bag) -> str | None:
    """Return the most likely colour topic: colour words first, no depth, raw before compressed, most messages."""

    def score(topic: TopicInfo) -> tuple[int, ...]:
        name = topic.name.lower()
        colour = any(word in name for word in ("color", "colour", "rgb"))
        secondary = any(word in name for word in SECONDARY_WORDS)
        return (int(colour) - int(secondary), int("image" in name), topic.count, int(topic.type == IMAGE))

    return _best(_of_type(bag, (IMAGE, COMPRESSED_IMAGE)), score, lambda topic: not _is_depth(topic.name))


def find_depth(bag: Bag, image: str) -> str | None:
    """Return the depth topic that is most likely registered to ``image``: aligned, and nearest in name."""

    def score(topic: TopicInfo) -> tuple[int, ...]:
        name = topic.name.lower()
        aligned = any(word in name for word in ("aligned", "registered"))
        lossless = int(topic.type == IMAGE) * 2 + int(name.endswith("compresseddepth"))
        return (int(aligned), _shared_prefix(topic.name, image), lossless, topic.count)

    return _best(
        _of_type(bag, (IMAGE, COMPRESSED_IMAGE)),
        score,
        lambda topic: (
            _is_depth(topic.name) and topic.name != image and "color" not in topic.name.lower().split("/")[-1]
        ),
    )


def find_info(bag: Bag, image: str) -> str | None:
    """Return the camera_info in the image's namespace, or the only one there is."""
    infos = _of_type(bag, (CAMERA_INFO,))
    near = [topic for topic in infos if topic.name.rsplit("/", 1)[0] == _namespace(image)]
    if near:
        return near[0].name
    related = [topic for topic in infos if not _is_depth(topic.name)] or infos
    best = max(related, key=lambda topic: _shared_prefix(topic.name, image), default=None)
    return best.name if best is not None and (len(related) == 1 or _shared_prefix(best.name, image) > 1) else None


def find_pose(bag: Bag) -> str | None:
    """Return the pose topic: Odometry before poses before /tf; names with odom first, ground truth last."""

    def score(topic: TopicInfo) -> tuple[int, ...]:
        name = topic.name.lower()
        kind = len(POSE_TYPES) - POSE_TYPES.index(topic.type)
        truth = any(word in name for word in TRUTH_WORDS)
        return (int(not truth), kind, int("odom" in name), int(name in ("/odom", "/odometry")), topic.count)

    return _best(
        _of_type(bag, POSE_TYPES),
        score,
        lambda topic: not (topic.type in TF_TYPES and topic.name.endswith("tf_static")),
    )


def tf_topics(bag: Bag) -> list[str]:
    """Return the topics that carry transforms."""
    return [topic.name for topic in _of_type(bag, TF_TYPES)]


def _named(bag: Bag, name: str | None, types: Iterable[str], flag: str) -> str | None:
    if name is None:
        return None
    topic = bag.topic(name)
    if topic.type not in types:
        short = ", ".join(kind.rsplit("/", 1)[1] for kind in types)
        raise DataError(f"{bag.path}: {flag} {name} is a {topic.type}; expected one of {short}")
    return name


def _best(
    topics: list[TopicInfo], score: Callable[[TopicInfo], tuple[int, ...]], accept: Callable[[TopicInfo], bool]
) -> str | None:
    candidates = [topic for topic in topics if accept(topic)]
    # sorted by name before, so that equal scores give the same choice every time
    return max(candidates, key=score).name if candidates else None


def _of_type(bag: Bag, types: Iterable[str]) -> list[TopicInfo]:
    wanted = set(types)
    return [topic for topic in bag.topics.values() if topic.type in wanted]


def _is_depth(name: str) -> bool:
    return any(word in name.lower() for word in DEPTH_WORDS)


def _namespace(image: str) -> str:
    parts = image.split("/")
    if parts[-1] in ("compressed", "compressedDepth"):
        parts = parts[:-1]
    return "/".join(parts[:-1])


def _shared_prefix(first: str, second: str) -> int:
    count = 0
    for left, right in zip(first.split("/"), second.split("/"), strict=False):
        if left != right:
            break
        count += 1
    return count


def _contents(bag: Bag) -> str:
    listed = [f"{topic.name} ({topic.type.rsplit('/', 1)[1]})" for topic in bag.topics.values()]
    return ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")
