"""The executable `fusion`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..process import run

if TYPE_CHECKING:
    from ..managed import ManagedNode

_USAGE = """\
fusion [-h] [--ros-args [-p NAME:=VALUE] [--params-file FILE] [-r FROM:=TO] [--log-level LEVEL] ...]

The lifecycle node that gives the instances of `segmenter` a place, from a lidar or a depth camera. It takes ROS
arguments only, for example

  fusion --ros-args -p autostart:=true -p points_topic:=/lidar/points
  fusion --ros-args -p autostart:=true -p source:=depth -p cameras.camera.depth_topic:=/camera/depth/image_raw

Parameters (`ros2 param describe /fusion NAME` tells more; docs/fusion.md lists all):
  source, points_topic, segmenter, target_frame, fixed_frame
  camera_names, cameras.NAME.results, .info_topic, .depth_topic, .depth_transport, .rectified, .frame_id
  max_difference, max_wait, transform_tolerance, min_points, cluster_gap, cluster_share, all_points, motion_headings
  autostart, diagnostics_period

Topics: ~/points, ~/detections_3d, ~/markers (under ~/NAME/ with several depth cameras) and /diagnostics.
Without autostart a lifecycle manager, or `ros2 lifecycle set /fusion configure` and `activate`, starts it.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node until it is interrupted.

    Args:
        argv: arguments without the program's name; those of the process by default.

    Returns:
        0 after a signal, 2 when the node cannot be created.
    """
    return run("fusion", _USAGE, _load, argv)


def _load() -> Callable[[], ManagedNode]:
    from .node import FusionNode

    return FusionNode


if __name__ == "__main__":
    sys.exit(main())
