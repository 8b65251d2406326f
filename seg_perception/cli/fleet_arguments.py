"""Arguments and printing of commands that work on many bags, each by itself."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from seg_perception.core.errors import ConfigurationError

if TYPE_CHECKING:
    from seg_perception.offboard.fleet.driver import Executor
    from seg_perception.offboard.fleet.fleet import FleetOutcome, FleetPlan
    from seg_perception.offboard.fleet.work import FleetWork

_LOCAL, _RAY = "local", "ray"
_MOST_SHOWN = 20


def add_fleet_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how many bags are worked on."""
    fleet = parser.add_argument_group("many bags, each with a result of its own in a folder (docs/fleet.md)")
    fleet.add_argument(
        "--executor", choices=(_LOCAL, _RAY), default=_LOCAL,
        help="one after the other in this process, or at once on Ray (default: %(default)s)",
    )  # fmt: skip
    fleet.add_argument(
        "--address", default="", metavar="A",
        help="of a Ray cluster: auto or HOST:PORT (default: a Ray of this machine, for this run)",
    )  # fmt: skip
    fleet.add_argument(
        "--workers", type=int, default=0, metavar="N", help="how many on Ray (default: one for each core or GPU)"
    )
    fleet.add_argument(
        "--per-gpu", type=int, default=1, metavar="N", help="workers on Ray that share a GPU (default: %(default)s)"
    )
    fleet.add_argument(
        "--retries", type=int, default=2, metavar="N", help="how often a failed bag is tried again (default: 2)"
    )
    fleet.add_argument("--list", type=Path, metavar="FILE", help="file with a path on each line; - for standard input")


def bags_of(paths: Sequence[Path], arguments: argparse.Namespace) -> list[Path]:
    """Return the bags of the command line and of --list.

    Raises:
        ConfigurationError: there are none, or the list cannot be read.
    """
    listed: list[Path] = []
    if arguments.list is not None:
        try:
            text = sys.stdin.read() if str(arguments.list) == "-" else arguments.list.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"--list {arguments.list}: cannot be read ({error})") from error
        listed = [Path(line.strip()) for line in text.splitlines() if line.strip()]
    if not paths and not listed:
        raise ConfigurationError("expected bags, or --list with a file that names some; got none")
    return [*paths, *listed]


def on_fleet(arguments: argparse.Namespace) -> bool:
    """Return whether Ray was asked for.

    Raises:
        ConfigurationError: the arguments do not go together.
    """
    if arguments.executor == _RAY:
        return True
    for name in ("address", "workers"):
        if getattr(arguments, name):
            raise ConfigurationError(f"--{name}: expected only with --executor {_RAY}")
    return False


def worker_threads(arguments: argparse.Namespace) -> int:
    """Threads of each worker: on Ray there are as many workers as cores, unless told otherwise."""
    return int(arguments.threads or (arguments.executor == _RAY))


def run_on_fleet(work: FleetWork, paths: Sequence[Path], folder: Path, arguments: argparse.Namespace) -> int:
    """Do the work on all bags, and say what came of it.

    Returns:
        1 when a bag failed or something of one was lost, else 0.

    Raises:
        SegPerceptionError: nothing can be done.
    """
    from seg_perception.offboard.fleet.fleet import plan, run_fleet
    from seg_perception.offboard.fleet.progress import FleetProgress

    if arguments.retries < 0 or arguments.workers < 0 or arguments.per_gpu < 1:
        raise ConfigurationError("--retries, --workers: expected 0 or more; --per-gpu: 1 or more")
    planned = plan(paths, folder, work)
    _print_plan(planned)
    progress = FleetProgress()
    try:
        outcome = run_fleet(planned, folder, work, _executor(arguments), arguments.retries, progress)
    except KeyboardInterrupt:
        progress.close()
        print(f"stopped; finished bags are in {folder}, the same command goes on with the others")
        raise
    finally:
        progress.close()
    _print(outcome, folder)
    return 1 if outcome.failures or outcome.totals.get("faults") else 0


def _executor(arguments: argparse.Namespace) -> Executor:
    from seg_perception.offboard.fleet.driver import LocalExecutor
    from seg_perception.offboard.fleet.ray_executor import RayExecutor

    if not on_fleet(arguments):
        return LocalExecutor()
    return RayExecutor(arguments.address, arguments.workers, arguments.per_gpu)


def _print_plan(planned: FleetPlan) -> None:
    size = sum(task.source.bytes for task in planned.tasks) / 1e9
    print(f"{len(planned.tasks)} bags to do ({size:.2f} GB), {len(planned.done)} done before")
    for line in _some(f"again: {name}: {reason}" for name, reason in planned.again.items()):
        print(line)


def _print(outcome: FleetOutcome, folder: Path) -> None:
    frames = sum(int(each.outcome.get("frames", 0)) for each in outcome.results)
    rate = f": {frames / outcome.seconds:.1f} a second" if frames and outcome.seconds else ""
    print(f"{len(outcome.results)} bags, {frames} frames in {outcome.seconds:.1f} s{rate}")
    for line in _some(f"note: {note}" for note in outcome.notes):
        print(line)
    for line in _some(f"failed: {each.task.source.path}: {each.errors[-1]}" for each in outcome.failures):
        print(line)
    if faults := outcome.totals.get("faults"):
        print(f"lost: {faults} faults in what was read, see {folder}/NAME.json")
    print(f"results in {folder}: fleet.html, fleet.json, and a NAME.json for each bag")


def _some(lines: Iterable[str]) -> list[str]:
    """The first lines, and how many more there are."""
    found = list(lines)
    more = [f"... and {len(found) - _MOST_SHOWN} more, see fleet.json"] if len(found) > _MOST_SHOWN else []
    return [*found[:_MOST_SHOWN], *more]
