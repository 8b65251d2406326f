"""`seg_perception top`: what running nodes say of themselves, as a table that keeps up."""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import datetime, timezone
from shutil import get_terminal_size
from time import monotonic
from typing import Any

from seg_perception.onboard.monitor.load import GpuLoad, HostLoad, ProcessLoad
from seg_perception.onboard.monitor.nodes import Nodes
from seg_perception.onboard.monitor.probe import Probe, seconds_between
from seg_perception.onboard.monitor.table import Screen, table

HELP = "watch running nodes: rates, latencies, drops by cause, model and load, for each camera"
EPILOG = """\
It reads /diagnostics, so it sees every node of the domain, on this machine and on others; a node that falls silent is
STALE. The CPU load of a node is shown if it runs on this machine and tells its process; the GPU's if nvidia-smi or
tegrastats is here. A terminal is redrawn in place; a pipe gets one table after the other. Ctrl-C ends it.

Exit code: 0; with --once 1 if no node was heard within --timeout; 130 after Ctrl-C.

JSON, one object a line and --interval: `time`, `machine` (cpu_percent, cpus, gpu_percent, gpu_memory_mib,
gpu_memory_total_mib, where known), `nodes`: each with `name`, `level`, `message`, `silent_s`, `state`, `stages_ms`,
`model`, `process` (cpu_percent of one core, memory_mib) and `cameras`: `name`, `level`, `message`, `topic`,
`received_hz`, `processed_hz`, `received`, `processed`, `publishers`, `latency_ms` (p50, p95, p99), `dropped` by cause
since the start, and `values`, which is everything as it was published. `passed_over` counts what was not taken in:
statuses of names that no node can have, and nodes, cameras and values beyond the most that are kept.
"""
# With --once: after the first word, others that publish once a second get the time to.
_OTHERS_SECONDS = 1.2
_HOME, _END_OF_LINE, _REST, _CLEAR = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[2J"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("nodes", nargs="*", metavar="NODE", help="names of nodes (default: all)")
    parser.add_argument("--once", action="store_true", help="print one table and end")
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line, in place of the table")
    parser.add_argument(
        "--interval",
        type=seconds_between(0.05, 3600),
        default=1.0,
        metavar="S",
        help="seconds between tables (default: 1)",
    )
    parser.add_argument(
        "--timeout",
        type=seconds_between(0.05, 3600),
        default=10.0,
        metavar="S",
        help="seconds without a word after which to say what to check (default: 10)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Listen and print until told to end."""
    top = _Top(arguments)
    try:
        with Probe(["diagnostics"]) as probe:
            probe.first()
            return top.once(probe) if arguments.once else top.go_on(probe)
    finally:
        top.close()


class _Top:
    """The loop around the table."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._nodes = Nodes(arguments.nodes)
        self._host, self._gpu = HostLoad(), GpuLoad()
        self._publishers: int | None = 0
        self._in_place = not arguments.json and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._drawn = False
        self._host.cpu()

    def close(self) -> None:
        self._gpu.close()

    def once(self, probe: Probe) -> int:
        """One table of all nodes that speak; returns 1 if none does."""
        end = monotonic() + self._arguments.timeout
        while not len(self._nodes) and monotonic() < end:
            self._listen(probe, min(monotonic() + 0.1, end))
        if not len(self._nodes):
            print(self._silence(), file=sys.stderr)
            return 1
        # Loads are of the time between two looks.
        self._loads()
        self._listen(probe, monotonic() + _OTHERS_SECONDS)
        self._show()
        return 0

    def go_on(self, probe: Probe) -> int:
        """A table each interval, until a signal."""
        begin, warned = monotonic(), False
        while True:
            self._listen(probe, monotonic() + self._arguments.interval)
            if len(self._nodes):
                self._show()
            elif not warned and monotonic() - begin > self._arguments.timeout:
                warned = True
                print(self._silence(), file=sys.stderr)

    def _listen(self, probe: Probe, end: float) -> None:
        while (left := end - monotonic()) > 0:
            said = probe.next(left)
            if said is not None and "status" in said:
                self._nodes.hear(said["status"], monotonic())
                self._nodes.passed_over += said.get("left_out", 0)
            elif said is not None:
                self._publishers = said["publishers"]

    def _loads(self) -> dict[str, ProcessLoad]:
        found = {node.name: self._host.process(node.values) for node in self._nodes}
        return {name: load for name, load in found.items() if load is not None}

    def _machine(self) -> dict[str, Any]:
        cpu = self._host.cpu()
        known = {} if cpu is None else {"cpu_percent": round(cpu, 1), "cpus": os.cpu_count() or 1}
        return {**known, **self._gpu.latest}

    def _show(self) -> None:
        machine, loads, now = self._machine(), self._loads(), monotonic()
        if self._arguments.json:
            print(json.dumps(self._as_json(machine, loads, now)), flush=True)
            return
        lines = table(self._nodes, machine, loads, self._screen(), now, datetime.now().strftime("%H:%M:%S"))
        if not self._in_place or self._arguments.once:
            print("\n".join([*([""] if self._drawn else []), *lines]), flush=True)
        else:
            # Over the last table, line by line: clearing first would flicker.
            text = (f"{_END_OF_LINE}\n").join(lines)
            print(f"{'' if self._drawn else _CLEAR}{_HOME}{text}{_END_OF_LINE}{_REST}", end="", flush=True)
        self._drawn = True

    def _screen(self) -> Screen:
        if not sys.stdout.isatty():
            return Screen()
        size = get_terminal_size()
        colour = os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("NO_COLOR")
        return Screen(size.columns, size.lines if self._in_place and not self._arguments.once else 0, colour)

    def _as_json(self, machine: dict[str, Any], loads: dict[str, ProcessLoad], now: float) -> dict[str, Any]:
        nodes = []
        for node in self._nodes:
            load = loads.get(node.name)
            known = {} if load is None else {"cpu_percent": load.cpu, "memory_mib": load.memory}
            nodes.append({**node.as_json(now), "process": known})
        time = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return {"time": time, "machine": machine, "nodes": nodes, "passed_over": self._nodes.passed_over}

    def _silence(self) -> str:
        """Return what to check when no node speaks."""
        domain = os.environ.get("ROS_DOMAIN_ID") or "0"
        reach = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE") or "SUBNET"
        wanted = f" of {', '.join(self._arguments.nodes)}" if self._arguments.nodes else ""
        count = self._publishers
        there = {None: "who publishes it cannot be told", 0: "nobody publishes it", 1: "1 publisher is there"}
        odd = self._nodes.passed_over
        others = f"; {odd} statuses of names that no node can have came" if odd else ""
        return (
            f"no diagnostics{wanted} within {self._arguments.timeout:g} s on /diagnostics "
            f"({there.get(count, f'{count} publishers are there')}{others}); check that the node runs "
            "(`ros2 node list`; it speaks in every lifecycle state, also before it is active), that it has the same "
            f"ROS_DOMAIN_ID (here {domain}) and RMW_IMPLEMENTATION, that the discovery range (here "
            f"ROS_AUTOMATIC_DISCOVERY_RANGE={reach}) reaches it, and that its diagnostics_period is below --timeout"
        )
