"""Where the camera sits on the robot: tf says it, or else a parameter, and that is told."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from come_nav.data.cameras.frames import optical_extrinsics
from come_nav.ros.diagnostics import Level, Report
from come_nav.ros.transforms import Transforms, at_or_newest

TF_TOPICS = ("tf", "tf_static")


class Extrinsics:
    """Pose of the camera in the base, from tf where it tells, from ``camera_xyz_rpy`` elsewhere."""

    def __init__(self, node: Any, transforms: Transforms, T_base_camera: NDArray[np.float64]) -> None:
        """Take the node that logs, what hears tf, and the pose (4, 4) of the parameter."""
        self._node, self._transforms, self._T_parameter = node, transforms, T_base_camera
        self._source, self._frame, self._height_m = "", "", float("nan")

    def at(self, frame: str, stamp_s: float, warnings: list[str]) -> NDArray[np.float64]:
        """Return T_base_camera (4, 4) of an optical ``frame`` at a time; a change of source is logged."""
        base = self._node.values["base_frame"]
        found = at_or_newest(self._transforms, base, frame, stamp_s) if frame else None
        T = self._T_parameter if found is None else optical_extrinsics(found, frame, warnings)
        self._frame, self._height_m = frame, float(T[2, 3])
        source = "camera_xyz_rpy" if found is None else "tf"
        if source != self._source:
            self._source = source
            if found is None:  # rclpy knows a call by its line, and lets none change its severity
                self._node.log.warning(self._text())
            else:
                self._node.log.info(self._text())
        return T

    def report(self) -> Report:
        """Return where the camera's pose comes from."""
        if not self._source:
            return Report("extrinsics", Level.OK, "no image yet")
        values = {"source": self._source, "height_m": self._height_m}
        return Report("extrinsics", Level.OK if self._source == "tf" else Level.WARN, self._text(), values)

    def _text(self) -> str:
        base, height = self._node.values["base_frame"], f"{self._height_m:.3f} m above it"
        if self._source == "tf":
            return f"camera '{self._frame}' in '{base}' from tf: {height}"
        heard = {self._node.resolve_topic_name(f"/{name}") for name in TF_TOPICS}
        elsewhere = sorted(
            name
            for name, _ in self._node.get_topic_names_and_types()
            if name.rpartition("/")[2] in TF_TOPICS and name.strip("/") not in TF_TOPICS and name not in heard
            if self._node.count_publishers(name)
        )
        own = [name for name in elsewhere if name.startswith(self._node.get_namespace().rstrip("/") + "/")]
        names = ", ".join(own or elsewhere)
        hint = f"; transforms are on {names}: remap /tf and /tf_static there" if names else ""
        return f"tf does not connect '{self._frame}' to '{base}': camera_xyz_rpy is taken, {height}{hint}"
