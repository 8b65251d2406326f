"""The executable `segmenter`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from threading import Event, Thread
from typing import Any

from ..errors import BackendUnavailable

# After a signal the process ends within two seconds, even in the middle of opening a model.
_LOOK_SECONDS, _GRACE_SECONDS = 0.1, 1.5
_USAGE = """\
segmenter [-h] [--ros-args [-p NAME:=VALUE] [--params-file FILE] [-r FROM:=TO] [--log-level LEVEL] ...]

The lifecycle node that turns camera images into instance masks. It takes ROS arguments only, for example

  segmenter --ros-args -p model:=MODEL.onnx -p autostart:=true -r image_raw:=/front/image_raw

Parameters (`ros2 param describe /segmenter NAME` tells more; config/seg_perception.yaml lists all with defaults):
  model, backend, device, threads, classes            the model and what runs it
  cameras, cameras.NAME.topic, .transport, .max_age, .ignore_mask, .enabled, .thresholds.GROUP
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
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="segmenter", usage=_USAGE, add_help=False)
    parser.add_argument("-h", "--help", action="store_true")
    own = arguments[: arguments.index("--ros-args")] if "--ros-args" in arguments else arguments
    if parser.parse_args(own).help:
        print(_USAGE, end="")
        return 0
    try:
        return _run(arguments)
    except BackendUnavailable as error:
        print(f"segmenter: {error}", file=sys.stderr)
        return 2


def _run(arguments: Sequence[str]) -> int:
    try:
        import rclpy
        from rclpy.exceptions import NameValidationException, ParameterException
        from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

        from .node import SegmenterNode
    except ImportError as error:
        raise BackendUnavailable(
            f"the node needs rclpy, vision_msgs and the common message packages of ROS 2, but importing them failed "
            f"({error}); source the ROS installation (source /opt/ros/DISTRO/setup.bash) and install "
            "ros-DISTRO-vision-msgs, or use the command line `seg_perception`, which needs no ROS"
        ) from error
    ended = Event()
    try:
        rclpy.init(args=[sys.argv[0], *arguments])
        Thread(target=_end_late, args=(rclpy.ok, ended), daemon=True).start()
        node = SegmenterNode()
    except ParameterException as error:
        return _refuse(rclpy, ended, f"a parameter given at start was refused: {error}")
    except (NameValidationException, RuntimeError) as error:  # rclpy's RCLError is a RuntimeError
        return _refuse(rclpy, ended, f"the node cannot be created with these ROS arguments: {error}")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        # A signal shuts the context down under whatever callback is running, such as one that publishes; its error is
        # then no other news than the signal.
        if rclpy.ok():
            raise
    finally:
        # Another Ctrl-C would break the end off, not hasten it; `_end_late` sees to it that there is one.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        _end(rclpy, executor, node)
        ended.set()
    return 0


def _refuse(rclpy: Any, ended: Event, reason: str) -> int:
    print(f"segmenter: {reason}; correct it and start again (`segmenter --help`)", file=sys.stderr)
    ended.set()
    rclpy.try_shutdown()
    return 2


def _end(rclpy: Any, executor: Any, node: Any) -> None:
    node.release()
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()


def _end_late(running: Callable[[], bool], ended: Event) -> None:
    """End the process by force when it has not ended by itself some time after a signal.

    rclpy handles signals by shutting its context down, without a call into Python; the main thread may be deep in a
    model compiler and not return for minutes.
    """
    while running() and not ended.wait(_LOOK_SECONDS):
        pass
    if not ended.wait(_GRACE_SECONDS):
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
