"""The computer itself: clock speed, power mode, disks, time."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

from .finding import Finding, Level
from .surroundings import Surroundings

GROUP = "machine"
# Drivers that choose the clock by themselves under these names of governors.
_SELF_REGULATING = ("intel_pstate", "amd-pstate-epp", "amd_pstate_epp")
_SLOW_GOVERNORS = ("powersave", "conservative")
_GIB = 1 << 30
# Logs, compiled kernels and bags of some days, and what the next start needs to write at all.
_LITTLE, _NOTHING = 2 * _GIB, 200 << 20


def check_machine(around: Surroundings) -> list[Finding]:
    """Look at the computer."""
    return [check_governor(around), check_power_mode(around), check_time(around), *check_disks(around)]


def check_governor(around: Surroundings) -> Finding:
    """Return whether the CPU's clock follows the load."""
    folder = "sys/devices/system/cpu"
    governors = Counter(
        around.read(str(path.relative_to(around.root)))
        for path in sorted((around.root / folder).glob("cpu[0-9]*/cpufreq/scaling_governor"))
    )
    if not governors:
        found = "the kernel tells no governor (a virtual machine or container)"
        return Finding(GROUP, "CPU governor", Level.SKIPPED, found)
    driver = around.read(f"{folder}/cpu0/cpufreq/scaling_driver")
    text = ", ".join(f"{name} on {count} CPUs" for name, count in governors.items()) + (
        f" ({driver})" if driver else ""
    )
    slow = [name for name in governors if name in _SLOW_GOVERNORS]
    if slow and driver not in _SELF_REGULATING:
        advice = "sudo cpupower frequency-set -g performance (on a Jetson: sudo jetson_clocks)"
        return Finding(GROUP, "CPU governor", Level.WARN, f"{text}: latencies vary with it", advice)
    return Finding(GROUP, "CPU governor", Level.OK, text)


def check_power_mode(around: Surroundings) -> Finding:
    """The power mode of a Jetson, or whether a laptop runs on its battery."""
    if around.has_program("nvpmodel"):
        answer = around.run(["nvpmodel", "-q"])
        mode = next((line.partition(":")[2].strip() for line in answer.out.splitlines() if "Power Mode" in line), "")
        if not mode:
            found = f"nvpmodel does not tell: {answer.reason}"
            return Finding(GROUP, "power mode", Level.SKIPPED, found, "sudo nvpmodel -q")
        if not mode.upper().startswith("MAXN"):
            advice = "sudo nvpmodel -m 0 (its numbers are in /etc/nvpmodel.conf), unless the power budget forbids it"
            return Finding(GROUP, "power mode", Level.WARN, f"{mode}: clocks are capped", advice)
        return Finding(GROUP, "power mode", Level.OK, mode)
    for path in sorted((around.root / "sys/class/power_supply").glob("*/type")):
        supply = path.parent.relative_to(around.root)
        if around.read(f"{supply}/type") == "Mains":
            on = around.read(f"{supply}/online") == "1"
            level, advice = (Level.OK, "") if on else (Level.WARN, "plug it in: on battery the clocks are lower")
            return Finding(GROUP, "power mode", level, "on mains" if on else "on battery", advice)
    return Finding(GROUP, "power mode", Level.SKIPPED, "no Jetson and no battery here")


def check_time(around: Surroundings) -> Finding:
    """Return whether the system's clock is synchronised, so that stamps of several machines can be compared."""
    if not around.has_program("timedatectl"):
        return Finding(GROUP, "time", Level.SKIPPED, "timedatectl is absent", "look with `chronyc tracking` or pmc")
    answer = around.run(["timedatectl", "show", "--property=NTPSynchronized", "--value"])
    said = answer.out.strip()
    if answer.code or said not in ("yes", "no"):
        found = f"timedatectl does not tell: {answer.reason}"
        return Finding(GROUP, "time", Level.SKIPPED, found, "look with `chronyc tracking` or pmc")
    if said == "no":
        advice = "install and start chrony (or systemd-timesyncd; PTP with ptp4l and phc2sys)"
        found = "the system's clock is not synchronised: stamps of other machines cannot be compared with it"
        return Finding(GROUP, "time", Level.WARN, found, advice)
    return Finding(GROUP, "time", Level.OK, "the system's clock is synchronised")


def check_disks(around: Surroundings) -> list[Finding]:
    """Room for logs and for what is compiled at the first start."""
    environment = around.environment
    home = Path(environment.get("HOME", "/"))
    places = {
        "cache": Path(environment.get("XDG_CACHE_HOME") or home / ".cache"),
        "logs": Path(environment.get("ROS_LOG_DIR") or Path(environment.get("ROS_HOME") or home / ".ros") / "log"),
    }
    return [_disk(name, path) for name, path in places.items()]


def _disk(name: str, path: Path) -> Finding:
    existing = next((each for each in (path, *path.parents) if each.exists()), Path("/"))
    check, text = f"disk for {name}", f"{path}"
    try:
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return Finding(GROUP, check, Level.WARN, f"{text} cannot be looked at ({error.strerror})")
    text += f": {free / _GIB:.1f} GiB free"
    if not os.access(existing, os.W_OK):
        advice = "ROS needs a folder to log to: set ROS_LOG_DIR" if name == "logs" else "set XDG_CACHE_HOME"
        return Finding(GROUP, check, Level.WARN, f"{text}, but this user cannot write there", advice)
    if free < _NOTHING:
        return Finding(GROUP, check, Level.FAIL, text, "make room: a full disk stops logging and what waits for it")
    if free < _LITTLE:
        return Finding(GROUP, check, Level.WARN, text, "make room")
    return Finding(GROUP, check, Level.OK, text)
