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
    TRANSFORM_STAMPED,
)
from come_nav.data.video.packets import VIDEO_TYPES
from come_nav.data.video.stream import require_av

POSE_TYPES = (ODOMETRY, POSE_WITH_COVARIANCE, POSE_STAMPED, TRANSFORM_STAMPED, *TF_TYPES)
COLOUR_TYPES = (IMAGE, COMPRESSED_IMAGE, *VIDEO_TYPES)
NO_TOPIC = "none"  # what a user types to leave depth out
DEPTH_WORDS = ("depth", "disparity")
DEPTH_ENCODINGS = ("16uc1", "32fc1")
REGISTERED_WORDS = ("aligned", "registered", "depth_to_color", "depth_to_rgb")
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
    """Names of the topics a recording is made of; None where the bag has none such.

    Attributes:
        image, pose, depth, info: as they are named.
        depth_info: CameraInfo of the depth camera, if it has its own.
        tf: topics of transforms that belong to this robot.
        named: roles that the user named.
        notes: what the choice left out.
    """

    image: str
    pose: str
    depth: str | None = None
    info: str | None = None
    depth_info: str | None = None
    tf: tuple[str, ...] = ()
    named: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def roles(self) -> dict[str, str]:
        """Role -> topic name, of those that a user chooses."""
        chosen = {"image": self.image, "pose": self.pose, "depth": self.depth, "info": self.info}
        return {role: name for role, name in chosen.items() if name is not None}


def choose_topics(
    bag: Bag, image: str | None = None, depth: str | None = None, info: str | None = None, pose: str | None = None
) -> TopicChoice:
    """Choose by type and name; a topic that the user named must exist and have a fitting type.

    Raises:
        DataError: no image or no pose in the bag (lists what there is), or a named topic that does not fit.
    """
    named = frozenset(
        role for role, name in (("image", image), ("depth", depth), ("info", info), ("pose", pose)) if name is not None
    )
    kinds = image_kinds(bag)
    pose = _named(bag, pose, POSE_TYPES, "--pose-topic")
    image = _named(bag, image, COLOUR_TYPES, "--image-topic") or find_image(bag, kinds, near=pose)
    if image is None:
        raise DataError(f"{bag.path}: no colour image topic; the bag holds {_contents(bag)}")
    if bag.topics[image].type in VIDEO_TYPES:
        require_av(f"{bag.path}: {image} is video ({bag.topics[image].type}), and reading it")
    pose = pose or find_pose(bag, near=image)
    if pose is None:
        raise DataError(f"{bag.path}: no odometry, pose or /tf topic; the bag holds {_contents(bag)}")
    if depth == NO_TOPIC:
        depth = None
    else:
        depth = _named(bag, depth, (IMAGE, COMPRESSED_IMAGE), "--depth-topic") or find_depth(bag, image, kinds)
    info = None if info == NO_TOPIC else _named(bag, info, (CAMERA_INFO,), "--info-topic") or find_info(bag, image)
    depth_info = None if depth is None else info_beside(bag, depth)
    notes = _robots_note(bag, image, pose) if not {"image", "pose"} <= named else ()
    return TopicChoice(image, pose, depth, info, depth_info, tuple(tf_topics(bag, image)), named, notes)


def image_kinds(bag: Bag) -> dict[str, str]:
    """Return topic -> "colour" or "depth" of all image topics, by the encoding of their first message.

    Gazebo calls its colour camera depth_camera, and OAK's depth comes on /stereo: names mislead.
    """
    return {topic.name: _kind(bag, topic) for topic in _of_type(bag, (IMAGE, COMPRESSED_IMAGE))}


def _kind(bag: Bag, topic: TopicInfo) -> str:
    name = topic.name.lower()
    by_name = "depth" if any(word in name for word in DEPTH_WORDS) else "colour"
    try:
        message = next(iter(bag.messages([topic.name]))).decode()
    except (StopIteration, DataError):
        return by_name
    if topic.type == COMPRESSED_IMAGE:
        text = str(message.format).lower()
        return "depth" if "compresseddepth" in text or text.startswith(("16uc1", "32fc1")) else "colour"
    encoding = str(message.encoding).lower()
    if encoding == "mono16":  # depth or infrared: only names tell
        return by_name
    return "depth" if encoding in DEPTH_ENCODINGS else "colour"


def find_image(bag: Bag, kinds: dict[str, str] | None = None, near: str | None = None) -> str | None:
    """Return the most likely colour topic: colour words first, no depth, raw before compressed, most messages.

    Video is taken where there are no images.

    Of several robots' topics with one name, that of the robot of the topic ``near``.
    """
    found = image_kinds(bag) if kinds is None else kinds

    def score(topic: TopicInfo) -> tuple[int, ...]:
        name = topic.name.lower()
        colour = any(word in name for word in ("color", "colour", "rgb"))
        secondary = any(word in name for word in SECONDARY_WORDS)
        of_depth = any(word in name.replace("depth_camera", "") for word in DEPTH_WORDS)
        return (
            int(colour) - int(secondary) - 2 * int(of_depth),
            int("image" in name),
            topic.count,
            int(topic.type == IMAGE),
        )

    best = _best(_of_type(bag, (IMAGE, COMPRESSED_IMAGE)), score, lambda topic: found[topic.name] == "colour")
    best = best or _best(_of_type(bag, VIDEO_TYPES), score, lambda topic: True)
    return _of_same_robot(bag, best, near)


def find_depth(bag: Bag, image: str, kinds: dict[str, str] | None = None) -> str | None:
    """Return the depth topic that is most likely registered to ``image``: aligned, and nearest in name."""
    found = image_kinds(bag) if kinds is None else kinds

    def score(topic: TopicInfo) -> tuple[int, ...]:
        name = topic.name.lower()
        lossless = int(topic.type == IMAGE) * 2 + int(name.endswith("compresseddepth"))
        return (int(says_registered(name)), _shared_prefix(topic.name, image), lossless, topic.count)

    def accept(topic: TopicInfo) -> bool:
        name = topic.name.lower()
        other = any(word in name for word in SECONDARY_WORDS) and not any(word in name for word in DEPTH_WORDS)
        return found[topic.name] == "depth" and topic.name != image and not other

    return _best(_of_type(bag, (IMAGE, COMPRESSED_IMAGE)), score, accept)


def says_registered(topic: str) -> bool:
    """Tell whether a depth topic's name says that it lies in the pixels of the colour image."""
    return any(word in topic.lower() for word in REGISTERED_WORDS)


def info_beside(bag: Bag, image: str) -> str | None:
    """Return the camera_info in the image's own namespace."""
    near = [topic for topic in _of_type(bag, (CAMERA_INFO,)) if topic.name.rsplit("/", 1)[0] == _namespace(image)]
    return near[0].name if near else None


def find_info(bag: Bag, image: str) -> str | None:
    """Return the camera_info in the image's namespace, or the only one there is."""
    beside = info_beside(bag, image)
    if beside is not None:
        return beside
    infos = _of_type(bag, (CAMERA_INFO,))
    related = [topic for topic in infos if not _is_depth(topic.name)] or infos
    best = max(related, key=lambda topic: _shared_prefix(topic.name, image), default=None)
    return best.name if best is not None and (len(related) == 1 or _shared_prefix(best.name, image) > 1) else None


def find_pose(bag: Bag, near: str | None = None) -> str | None:
    """Return the pose topic: Odometry before poses before transforms; names with odom first, ground truth last.

    Of several robots' topics with one name, that of the robot of the topic ``near``.
    """

    def score(topic: TopicInfo) -> tuple[int, ...]:
        name = topic.name.lower()
        kind = len(POSE_TYPES) - POSE_TYPES.index(topic.type)
        truth = any(word in name for word in TRUTH_WORDS)
        return (int(not truth), kind, int("odom" in name), int(name in ("/odom", "/odometry")), topic.count)

    best = _best(
        _of_type(bag, POSE_TYPES),
        score,
        lambda topic: not (topic.type in TF_TYPES and topic.name.endswith("tf_static")),
    )
    return _of_same_robot(bag, best, near)


def _of_same_robot(bag: Bag, best: str | None, near: str | None) -> str | None:
    """Return the topic that is called like ``best`` but for the robot's namespace, which it shares with ``near``."""
    if best is None or near is None:
        return best
    peers = [name for name in _peers(bag, best) if _robot(name) == _robot(near)]
    return peers[0] if peers else best


def _peers(bag: Bag, name: str) -> list[str]:
    """Return the topics of one type that differ from ``name`` in their first part only."""
    kind, tail = bag.topics[name].type, name.split("/")[2:]
    return [
        other for other, topic in bag.topics.items() if topic.type == kind and tail and other.split("/")[2:] == tail
    ]


def _robot(name: str) -> str:
    return name.split("/")[1] if name.count("/") > 1 else ""


def _robots_note(bag: Bag, image: str, pose: str) -> tuple[str, ...]:
    """Return a note where several robots publish poses or images under one name."""
    notes = []
    for name, flag in ((image, "--image-topic"), (pose, "--pose-topic")):
        peers = (other for other in _peers(bag, name) if other != name)
        others = [other for other in peers if not any(word in other.lower() for word in TRUTH_WORDS)]
        if others and any(word in name for word in ("odom", "image", "pose")):
            notes.append(f"{name} is used, and not {', '.join(others[:3])}; choose with {flag}")
    return tuple(notes)


def tf_topics(bag: Bag, near: str | None = None) -> list[str]:
    """Return the topics that carry transforms; of robots with a tree each, those nearest in name to ``near``."""
    names = [topic.name for topic in _of_type(bag, TF_TYPES)]
    places = {name.rsplit("/", 1)[0] for name in names}
    if near is None or len(places) < 2:
        return names
    own = max(sorted(places), key=lambda place: _shared_prefix(f"{place}/", near))
    return [name for name in names if name.rsplit("/", 1)[0] == own]


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
    if parts[-1] in ("compressed", "compressedDepth", "ffmpeg"):
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
