"""Run every benchmark; `python -m bench model paint` runs some."""

from __future__ import annotations

import sys
from datetime import date
from importlib import import_module

from bench.table import machine

ALL = ("model", "head", "paint", "transport", "node", "subscription")


def main() -> int:
    """Run the benchmarks named on the command line, or all."""
    chosen = [name for name in sys.argv[1:] if name in ALL] or list(ALL)
    print(f"{date.today().isoformat()}  {machine()}")
    for name in chosen:
        import_module(f"bench.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
