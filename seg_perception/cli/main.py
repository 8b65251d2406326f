"""The command `seg_perception` and its table of subcommands."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from seg_perception import __version__
from seg_perception.core.errors import SegPerceptionError, interrupted
from seg_perception.core.text import message_text

# A command is a module with HELP, add_arguments(parser) and run(arguments) -> exit code. Commands import what they
# need when they run, so that --help needs none of it.
COMMANDS = {
    "models": "seg_perception.cli.models",
    "fetch": "seg_perception.cli.fetch",
    "prepare": "seg_perception.cli.prepare",
    "quantize": "seg_perception.cli.quantize",
    "build": "seg_perception.cli.build",
    "inspect": "seg_perception.cli.inspect",
    "image": "seg_perception.cli.image",
    "verify": "seg_perception.cli.verify",
    "evaluate": "seg_perception.cli.evaluate",
    "bench": "seg_perception.cli.bench",
    "replay": "seg_perception.cli.replay",
    "fuse": "seg_perception.cli.fuse",
    "streetworld": "seg_perception.cli.streetworld",
    "label": "seg_perception.cli.label",
    "review": "seg_perception.cli.review",
    "top": "seg_perception.cli.top",
    "doctor": "seg_perception.cli.doctor",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (0 done, 1 failed, 2 wrong usage, 130 interrupted)."""
    arguments = argparse.Namespace(command="")
    try:
        _parser().parse_args(argv, arguments)
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if interrupted(error):
            return 130
        if isinstance(error, BrokenPipeError):
            # The reader of our output, such as `head`, has seen enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        elif isinstance(error, SegPerceptionError):
            print(f"error: {message_text(error)}", file=sys.stderr)
        elif isinstance(error, ImportError):
            print(f"error: {_missing(arguments.command, error)}", file=sys.stderr)
        else:
            raise
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="seg_perception", description="Per-instance masks of road users, signs and lights from camera images."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module_name in COMMANDS.items():
        module = import_module(module_name)
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def _missing(command: str, error: ImportError) -> str:
    package = {"cv2": "opencv-python", "yaml": "PyYAML"}.get(error.name or "", error.name)
    return (
        f"`{f'seg_perception {command}'.strip()}` needs the Python package {package}, which cannot be "
        f"imported ({error}); install it with pip or, on a ROS distribution, with rosdep"
    )


if __name__ == "__main__":
    sys.exit(main())
