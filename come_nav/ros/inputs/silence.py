"""Why an input may be silent: what the ROS graph shows of it, in words that name the way out."""

from __future__ import annotations

from typing import Any

SUFFIXES = {"compressed": "image_transport", "compressedDepth": "depth_transport"}


def cause_of_silence(node: Any, topic: str, kind: str) -> str:
    """Return what the graph tells about a topic (fully resolved) of the type ``kind`` that nothing came on."""
    publishers = node.get_publishers_info_by_topic(topic)
    others = sorted({end.topic_type for end in publishers if kind and end.topic_type != kind})
    if others:
        return f"{', '.join(others)} is published there, {kind} expected"
    if publishers:
        names = ", ".join(sorted({end.node_name for end in publishers}))
        return f"{names} publishes there, but nothing arrives: is the sensor on, do DDS's buffers hold an image?"
    known = dict(node.get_topic_names_and_types())
    for suffix, parameter in SUFFIXES.items():
        if f"{topic}/{suffix}" in known and node.count_publishers(f"{topic}/{suffix}"):
            return f"a publisher exists on {topic}/{suffix}: set {parameter} to {suffix}"
    own = topic.removeprefix(node.get_namespace().rstrip("/") + "/")
    same = (name for name, kinds in known.items() if name != topic and name.endswith(f"/{own}") and kind in kinds)
    like = sorted(name for name in same if node.count_publishers(name))
    if like:
        return f"nobody publishes there; {', '.join(like[:3])} exists: set the namespace, or remap"
    return "nobody publishes there"
