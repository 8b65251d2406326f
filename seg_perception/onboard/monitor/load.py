"""How busy this machine is, and a node's process on it."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

import psutil

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
    """The CPUs of this machine and processes on it."""

    def __init__(self) -> None:
        # psutil compares with its last look, and has nothing to say at the first.
        self._looked = False
        self._processes: dict[int, psutil.Process] = {}

    def cpu(self) -> float | None:
        """Percent of all CPUs that were busy since the last look; None at the first."""
        percent, looked = psutil.cpu_percent(), self._looked
        self._looked = True
        return percent if looked else None

    def process(self, values: Mapping[str, str]) -> ProcessLoad | None:
        """The load of a node's process.

        Args:
            values: of the node's status, with `pid` and `host`; without them, or for a node elsewhere, nothing is told.
        """
        pid = count(values.get("pid", ""))
        if values.get("host") != socket.gethostname() or pid is None:
            return None
        known = self._processes.pop(pid, None)
        try:
            # Numbers of processes come again.
            process = known if known and known.is_running() else psutil.Process(pid)
            # A container may share the host's name and not its numbers of processes.
            if not any("seg" in word for word in process.cmdline()):
                return None
            cpu, memory = process.cpu_percent(), process.memory_info().rss
        except psutil.Error:
            return None
        self._processes[pid] = process
        return ProcessLoad(cpu if process is known else None, memory / _MIB)


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
