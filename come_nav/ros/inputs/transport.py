"""One image topic as image_transport publishes it: raw, or compressed under a name of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sensor_msgs.msg import CompressedImage, Image

from come_nav.ros.diagnostics import Stream
from come_nav.ros.qos import SENSOR

AUTO, RAW = "auto", "raw"
LOOK_PERIOD_S = 1.0


class ImageTopic:
    """Subscribes to images; with "auto" to the compressed ones as well, once nothing but them is published."""

    def __init__(
        self, node: Any, stream: Stream, topic: str, transport: tuple[str, str], take: Callable[[Any], None]
    ) -> None:
        """Subscribe.

        Args:
            node: EndpointsNode.
            stream: the watched input, whose topic becomes the one that is in use.
            topic: name of the raw images.
            transport: "auto", "raw" or the word that follows; and the word that compressed images' topic ends with.
            take: called with each message.
        """
        self._node, self._stream, self._take = node, stream, take
        self._topic, self._compressed = topic, compressed_topic(node, topic, transport[1])
        self._in_use = RAW
        if transport[0] in (AUTO, RAW):
            node.subscribe(Image, topic, lambda message: self._arrived(RAW, message), SENSOR)
        if transport[0] == AUTO:
            node.every(LOOK_PERIOD_S, self._look)
        elif transport[0] != RAW:
            self._use_compressed()

    def _look(self) -> None:
        if self._in_use != RAW or self._stream.count or self._node.count_publishers(self._stream.topic):
            return
        if self._node.count_publishers(self._compressed):
            self._node.log.info(f"nobody publishes {self._stream.topic}: {self._compressed} is taken")
            self._use_compressed()

    def _use_compressed(self) -> None:
        self._in_use, self._stream.topic = "compressed", self._node.resolve_topic_name(self._compressed)
        self._node.subscribe(
            CompressedImage, self._compressed, lambda message: self._arrived("compressed", message), SENSOR
        )

    def _arrived(self, how: str, message: Any) -> None:
        if how == self._in_use:  # raw ones that begin later are the same images
            self._take(message)


def compressed_topic(node: Any, topic: str, word: str) -> str:
    """Return the topic of compressed images: as remapped, else below the raw topic as that is remapped."""
    own = f"{topic}/{word}"
    if node.resolve_topic_name(own) != node.resolve_topic_name(own, only_expand=True):
        return own
    return f"{node.resolve_topic_name(topic)}/{word}"
