"""Run the benchmarks, each in a process of its own: `python -m bench` all, `python -m bench model paint` some."""

from __future__ import annotations

import argparse
import subprocess
import sys
from datetime import datetime, timezone

from bench.table import machine

# Those that take --model and --input, and those that need neither.
ON_A_MODEL = ("model", "head", "node")
ALONE = ("paint", "transport", "subscription")


def main() -> int:
    """Run them; the exit code is that of the first that failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join((*ON_A_MODEL, *ALONE))}")
    parser.add_argument("--model", help="canonical model or raw export (head: raw export)")
    parser.add_argument("--input", nargs="+", help="pictures, folders or videos")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - {*ON_A_MODEL, *ALONE}
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    print(f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC  {machine()}", flush=True)
    given = [*(["--model", arguments.model] if arguments.model else [])]
    given += ["--input", *arguments.input] if arguments.input else []
    for name in arguments.names or (*ON_A_MODEL, *ALONE):
        done = subprocess.run([sys.executable, "-m", f"bench.{name}", *(given if name in ON_A_MODEL else [])])
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
