"""The systemd unit in deploy/: what systemd says of it, and what it must not lose."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

UNIT = Path(__file__).resolve().parents[2] / "deploy" / "seg_perception.service"
# Tenths of systemd's exposure, 0 to 100; 20 and less needs what a node with GPU, cameras and network cannot give up.
MOST_EXPOSURE = 30


def entries() -> dict[str, list[str]]:
    found = defaultdict(list)
    for line in UNIT.read_text().splitlines():
        if match := re.fullmatch(r"([A-Za-z]+)=(.*)", line):
            found[match[1]].append(match[2])
    return found


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run([program, *arguments, str(UNIT)], capture_output=True, text=True, timeout=60)
    if "unrecognized option" in done.stderr:
        pytest.skip(f"this systemd-analyze is too old: {done.stderr.strip()}")
    return done


def test_what_the_node_may_take_and_do_is_limited() -> None:
    unit = entries()
    for key in ("MemoryMax", "TasksMax", "LimitNOFILE", "SystemCallFilter", "RestrictAddressFamilies"):
        assert unit[key], key
    assert unit["CapabilityBoundingSet"] == [""]
    assert (unit["NoNewPrivileges"], unit["ProtectSystem"], unit["ProtectHome"]) == (["yes"], ["strict"], ["yes"])
    assert unit["User"] != ["root"]


def test_what_the_node_needs_stays_open() -> None:
    unit = entries()
    # GPUs, cameras' shared memory, code that OpenVINO and CUDA make, DDS over the network.
    for key in ("PrivateDevices", "DeviceAllow", "ProtectClock", "MemoryDenyWriteExecute", "PrivateIPC", "RemoveIPC"):
        assert key not in unit
    assert {"AF_UNIX", "AF_INET", "AF_NETLINK"} <= set(unit["RestrictAddressFamilies"][0].split())
    # With a read-only system, whatever is written needs a folder of its own.
    for folder in ("CacheDirectory", "LogsDirectory", "StateDirectory"):
        assert unit[folder] == ["seg_perception"]
    assert "ROS_HOME=%S/seg_perception" in " ".join(unit["Environment"])


def test_systemd_understands_it() -> None:
    done = analyze("verify", "--man=no")
    # bash may be elsewhere on a machine that only tests.
    assert not re.search(r"Unknown|Failed to parse|Invalid", done.stderr), done.stderr


def test_its_exposure() -> None:
    done = analyze("security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSURE}")
    assert done.returncode == 0, done.stdout.splitlines()[-1:] + done.stderr.splitlines()
