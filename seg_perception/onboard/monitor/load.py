"""How busy this machine is, and a node's process on it, as far as that can be told without a package for it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any

from .nodes import count

_MIB = 1 << 20
_GPU_PERIOD_SECONDS = 2.0
_GPU_PATIENCE_SECONDS = 5.0
_NVIDIA_SMI = ("--query-gpu=utilization.gpu,memory.used,memory.total", "--format=csv,noheader,nounits")


@dataclass(frozen=True, slots=True)
class ProcessLoad:
    """A process: CPU time in percent of one core since the last look (None at the first), memory in MiB."""

    cpu: float | None
    memory: float


class HostLoad:
    """The CPUs of this machine and processes on it, from /proc."""

    def __init__(self, root: Path = Path("/proc")) -> None:
        self._root = root
        self._ticks = os.sysconf("SC_CLK_TCK")
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._all: tuple[int, int] | None = None
        self._processes: dict[int, tuple[float, float]] = {}

    def cpu(self) -> float | None:
        """Percent of all CPUs that were busy since the last look; None at the first, and where nobody tells."""
        try:
            counts = [int(word) for word in (self._root / "stat").read_text().splitlines()[0].split()[1:9]]
        except (OSError, ValueError, IndexError):
            return None
        idle, total = sum(counts[3:5]), sum(counts)
        before, self._all = self._all, (idle, total)
        if before is None or total <= before[1]:
            return None
        return 100 * (1 - (idle - before[0]) / (total - before[1]))

    def process(self, values: Mapping[str, str]) -> ProcessLoad | None:
        """The load of a node's process.

        Args:
            values: of the node's status, with `pid` and `host`; without them, or for a node elsewhere, nothing is told.
        """
        pid = count(values.get("pid", ""))
        if values.get("host") != socket.gethostname() or pid is None:
            return None
        folder = self._root / str(pid)
        try:
            # A container may share the host's name and not its numbers of processes.
            if b"seg" not in (folder / "cmdline").read_bytes():
                return None
            # The name of the process, in parentheses, may hold anything.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        seconds, now = (int(fields[11]) + int(fields[12])) / self._ticks, monotonic()
        before = self._processes.get(pid)
        self._processes[pid] = seconds, now
        cpu = 100 * (seconds - before[0]) / (now - before[1]) if before and now > before[1] else None
        return ProcessLoad(cpu, int(fields[21]) * self._page / _MIB)


class GpuLoad:
    """What nvidia-smi, or a Jetson's tegrastats, says; asked by a thread, as they take their time."""

    def __init__(self, path: str | None = None) -> None:
        """Find them on PATH or on `path`."""
        self.latest: dict[str, Any] = {}
        self._smi, self._tegrastats = shutil.which("nvidia-smi", path=path), shutil.which("tegrastats", path=path)
        self._ended = Event()
        if self._smi or self._tegrastats:
            Thread(target=self._ask_on, daemon=True).start()

    def close(self) -> None:
        """Ask no more."""
        self._ended.set()

    def ask(self) -> dict[str, Any]:
        """`gpu_percent`, and `gpu_memory_mib` and `gpu_memory_total_mib` where the GPU has its own; else nothing."""
        found = from_nvidia_smi(_said([self._smi, *_NVIDIA_SMI])) if self._smi else {}
        # On a Jetson nvidia-smi is there and tells nothing.
        if not found and self._tegrastats:
            found = from_tegrastats(_first_line([self._tegrastats, "--interval", "500"]))
        return found

    def _ask_on(self) -> None:
        while not self._ended.is_set():
            self.latest = self.ask()
            self._ended.wait(_GPU_PERIOD_SECONDS)


def from_nvidia_smi(text: str) -> dict[str, Any]:
    """Read its line for the first GPU: utilisation in percent, memory used and total in MiB."""
    words = [word.strip() for word in (text.splitlines() or [""])[0].split(",")]
    names = ("gpu_percent", "gpu_memory_mib", "gpu_memory_total_mib")
    found = {name: float(word) for name, word in zip(names, words, strict=False) if word.isdecimal()}
    return found if "gpu_percent" in found else {}


def from_tegrastats(text: str) -> dict[str, Any]:
    """Read the GPU's part of its line, as in `GR3D_FREQ 45%`."""
    found = re.search(r"GR3D_FREQ (\d+)%", text)
    return {"gpu_percent": float(found[1])} if found else {}


def _said(command: list[str]) -> str:
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=_GPU_PATIENCE_SECONDS,
        ).stdout
    return ""


def _first_line(command: list[str]) -> str:
    """The first line of a program that would go on."""
    try:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as running:
            line = running.stdout.readline() if running.stdout else ""
            running.kill()
            return line
    except OSError:
        return ""
