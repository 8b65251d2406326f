"""Run the benchmarks, each in a process of its own: `python -m bench`, or some by name: `python -m bench paint`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from datetime import datetime, timezone

from bench.table import machine

# Those that take --model and --input, and those that need neither.
ON_A_MODEL = ("model", "head", "node")
ALONE = ("paint", "transport", "subscription")
# These take --model and --input too, and minutes: only on request.
ON_REQUEST = ("fusion", "toolchain", "tracking", "vehicle", "replay", "fleet")
# Needs an NVIDIA GPU, and takes --write.
ON_GPU = ("gpu",)


def main() -> int:
    """Run them; the exit code is that of the first that failed."""
    known = (*ON_A_MODEL, *ALONE, *ON_REQUEST, *ON_GPU)
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}")
    parser.add_argument("--model", help="canonical model or raw export (head, toolchain: raw export)")
    parser.add_argument("--input", nargs="+", help="images, folders or videos")
    parser.add_argument("--minutes", help="vehicle: how long the node is measured")
    parser.add_argument("--write", metavar="FILE.md", help="gpu: the page to put its section into")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - {*known}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    print(f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC  {machine()}", flush=True)
    given = [*(["--model", arguments.model] if arguments.model else [])]
    given += ["--input", *arguments.input] if arguments.input else []
    page = ["--write", arguments.write] if arguments.write else []
    for name in arguments.names or (*ON_A_MODEL, *ALONE):
        more = ["--minutes", arguments.minutes] if name == "vehicle" and arguments.minutes else []
        more += page if name in ON_GPU else [] if name in ALONE else given
        done = subprocess.run([sys.executable, "-m", f"bench.{name}", *more])
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
