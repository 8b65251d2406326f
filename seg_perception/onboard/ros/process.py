"""The process of a node: from its arguments to its end after a signal."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from seg_perception.core.errors import BackendUnavailable

if TYPE_CHECKING:
    from .managed import ManagedNode

# After a signal the process ends within two seconds. Frames in progress get the first of them; by force it ends when
# something else takes as long, which nothing is known to.
_PATIENCE_SECONDS, _GRACE_SECONDS = 0.8, 1.6
_LOOK_SECONDS = 0.1


def run(
    program: str, usage: str, load: Callable[[], Callable[[], ManagedNode]], argv: Sequence[str] | None = None
) -> int:
    """Run a node until it is interrupted.

    Args:
        program: its name.
        usage: what `--help` prints.
        load: imports what makes the node, and returns it.
        argv: arguments without the program's name; those of the process by default.

    Returns:
        0 after a signal, 2 when the node cannot be created.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog=program, usage=usage, add_help=False)
    parser.add_argument("-h", "--help", action="store_true")
    own = arguments[: arguments.index("--ros-args")] if "--ros-args" in arguments else arguments
    if parser.parse_args(own).help:
        print(usage, end="")
        return 0
    try:
        return _run(program, load, arguments)
    except KeyboardInterrupt:  # while modules are imported
        return 0
    except BackendUnavailable as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2


def _run(program: str, load: Callable[[], Callable[[], ManagedNode]], arguments: Sequence[str]) -> int:
    try:
        import rclpy
        from rclpy.exceptions import NameValidationException, ParameterException

        from .guard import GuardedExecutor, spin
        from .shared_memory import collect_stale

        make = load()
    except ImportError as error:
        raise BackendUnavailable(
            f"the node needs rclpy, vision_msgs and the common message packages of ROS 2, but importing them failed "
            f"({error}); source the ROS installation (source /opt/ros/DISTRO/setup.bash) and install "
            "ros-DISTRO-vision-msgs, or use the command line `seg_perception`, which needs no ROS"
        ) from error
    ended, begun = Event(), False
    # rclpy ends spinning by itself; an interrupt besides could hit anything, such as the wait for a thread.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    collected, freed = collect_stale()
    try:
        rclpy.init(args=[sys.argv[0], *arguments])
        begun = True
        Thread(target=_end_late, args=(rclpy.ok, ended), daemon=True).start()
        node = make()
    except ParameterException as error:
        return _refuse(rclpy, program, ended, f"a parameter given at start was refused: {error}")
    except (NameValidationException, RuntimeError) as error:  # rclpy's RCLError is a RuntimeError
        if begun and not rclpy.ok():  # a signal has shut the context down
            ended.set()
            return 0
        return _refuse(rclpy, program, ended, f"the node cannot be created with these ROS arguments: {error}")
    if collected:
        node.get_logger().info(
            f"removed {collected} shared-memory segments ({freed >> 20} MiB) that killed processes had left in /dev/shm"
        )
    executor = GuardedExecutor()
    executor.add_node(node)
    try:
        spin(executor, node)
    finally:
        # Another Ctrl-C would break the end off, not hasten it; `_end_late` sees to it that there is one.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        quiet = node.end(_PATIENCE_SECONDS)
        executor.shutdown()
        rclpy.try_shutdown()
        ended.set()
        if not quiet and sys.exc_info()[0] is None:
            # A model compiler or the model itself is at work, which cannot be broken off in an orderly way; but the
            # topics are gone as they ought to.
            _leave()
    return 0


def _refuse(rclpy: Any, program: str, ended: Event, reason: str) -> int:
    print(f"{program}: {reason}; correct it and start again (`{program} --help`)", file=sys.stderr)
    ended.set()
    rclpy.try_shutdown()
    return 2


def _leave() -> None:
    """End the process without ending what it is at."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _end_late(running: Callable[[], bool], ended: Event) -> None:
    """End the process by force when it has not ended by itself some time after a signal.

    rclpy handles signals by shutting its context down, without a call into Python, and the main thread may hang.
    """
    while running() and not ended.wait(_LOOK_SECONDS):
        pass
    if not ended.wait(_GRACE_SECONDS):
        _leave()
