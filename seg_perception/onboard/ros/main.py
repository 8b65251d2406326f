"""The executable `segmenter`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .process import run

if TYPE_CHECKING:
    from .managed import ManagedNode

_USAGE = """\
segmenter [-h] [--ros-args [-p NAME:=VALUE] [--params-file FILE] [-r FROM:=TO] [--log-level LEVEL] ...]

The lifecycle node that turns camera images into instance masks. It takes ROS arguments only, for example

  segmenter --ros-args -p model:=MODEL.onnx -p autostart:=true -r image_raw:=/front/image_raw

Parameters (`ros2 param describe /segmenter NAME` tells more; config/seg_perception.yaml lists all with defaults):
  model, backend, device, threads, classes, open_timeout, trial    the model and what runs it
  camera_names, cameras.NAME.topic, .transport, .max_age, .ignore_mask, .enabled, .thresholds.GROUP,
                .max_image_size, .bit_depth
  batch_wait, score_threshold, thresholds.GROUP, group_iou, min_pixels, keep_other_classes
  output_size, tracking, tracking_max_age, tracking_coast, overlay_style, overlay_figures
  autostart, diagnostics_period

Topics: ~/instance_map, ~/detections, ~/label_info, ~/semantic_map, ~/instance_map/color, ~/overlay,
~/overlay/compressed, ~/camera_info (under ~/NAME/ with several cameras) and /diagnostics. Service: ~/reload.
Without autostart a lifecycle manager, or `ros2 lifecycle set /segmenter configure` and `activate`, starts it.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node until it is interrupted.

    Args:
        argv: arguments without the program's name; those of the process by default.

    Returns:
        0 after a signal, 2 when the node cannot be created.
    """
    return run("segmenter", _USAGE, _load, argv)


def _load() -> Callable[[], ManagedNode]:
    from .node import SegmenterNode

    return SegmenterNode


if __name__ == "__main__":
    sys.exit(main())
