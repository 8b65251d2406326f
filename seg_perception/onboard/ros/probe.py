"""Look at a running ROS system for the command line, in a process of its own, which `cli/probe.py` starts.

`cli` may not import `ros`, and should not: what a middleware does to the process that loads it, from a missing library
to a crash at exit, must not take a doctor along, and a terminal must not have its signals handled by rclpy. So the
command line starts this module and reads JSON, one object a line, from its standard output. It ends when its standard
input does, so that nothing is left when the command line is killed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from threading import Thread
from typing import Any

# Told apart from crashes by who started us.
NO_ROS = 3
Tell = Callable[[Mapping[str, Any]], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Look and tell; returns the exit code: 0 done, 3 without ROS."""
    parser = argparse.ArgumentParser(prog="seg_perception.onboard.ros.probe")
    parser.add_argument("what", choices=["cameras", "diagnostics"])
    parser.add_argument("topics", nargs="*", help="full names; without any, all that carry images")
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args(argv)
    Thread(target=_end_with_input, daemon=True).start()
    try:
        import rclpy

        rclpy.init(args=[])
    except (ImportError, RuntimeError) as error:  # rclpy's RCLError is a RuntimeError
        print(f"ROS cannot be used: {' '.join(str(error).split())}", file=sys.stderr)
        return NO_ROS
    try:
        if arguments.what == "cameras":
            from .probe_cameras import look

            _tell(look(arguments.topics, arguments.seconds).as_json())
        else:
            from .probe_diagnostics import listen

            listen(_tell)
    finally:
        rclpy.try_shutdown()
    return 0


def _tell(values: Mapping[str, Any]) -> None:
    print(json.dumps(values), flush=True)


def _end_with_input() -> None:
    """Wait for the end of what is read, then end at once: whoever started us is gone or has seen enough."""
    # Not through sys.stdin, whose lock the interpreter wants at exit.
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
