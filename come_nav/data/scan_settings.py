"""How a bag is turned into a recording."""

from __future__ import annotations

from dataclasses import dataclass

from come_nav.core.checks import check_range


@dataclass(frozen=True)
class ScanSettings:
    """Rate, tolerances and part of the bag.

    Attributes:
        rate_hz: frames per second to choose; None keeps every image.
        time_offset_s: added to pose stamps before matching.
        max_difference_s: an image is used when a pose is at most this far away in time...
        max_pose_gap_s: ...or when the poses around it are at most this far apart (then it is interpolated).
        max_depth_difference_s: depth is taken from the nearest depth image within this time.
        max_gap_s: longer steps between frames are reported as gaps; None takes 2.5 periods.
        start_s: where to begin, in seconds after the bag's first message.
        stop_s: where to end, likewise.
        depth_scale_m: metres of one unit of integer depth images.
        odom_frame: world frame of poses on /tf, in place of odom, map or world.
        base_frame: the robot's own frame, in place of base_link, base_footprint or base.
        camera_frame: optical frame of the images, in place of the one in their header.
    """

    rate_hz: float | None = 4.0
    time_offset_s: float = 0.0
    max_difference_s: float = 0.05
    max_pose_gap_s: float = 1.0
    max_depth_difference_s: float = 0.05
    max_gap_s: float | None = None
    start_s: float | None = None
    stop_s: float | None = None
    depth_scale_m: float = 0.001
    odom_frame: str | None = None
    base_frame: str | None = None
    camera_frame: str | None = None

    def __post_init__(self) -> None:
        if self.rate_hz is not None:
            check_range("rate_hz", self.rate_hz, 0.0, 1000.0, open_low=True)
        check_range("depth_scale_m", self.depth_scale_m, 0.0, 1.0, open_low=True)
        check_range("time_offset_s", self.time_offset_s, -1e10, 1e10)
        for name in ("start_s", "stop_s", "max_gap_s"):
            if getattr(self, name) is not None:
                check_range(name, getattr(self, name), 0.0)
        for name in ("max_difference_s", "max_pose_gap_s", "max_depth_difference_s"):
            check_range(name, getattr(self, name), 0.0)
