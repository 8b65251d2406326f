"""The node and /dev/shm: what a killed one left, rights, and a shared memory that is too small or full."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from integration.harness import NodeProcess, wait_for


def segments(pid: int) -> set[Path]:
    """Segments whose lock a process holds."""
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    held = {int(line[5].rpartition(":")[2]) for line in lines if line[1] == "FLOCK" and line[4] == str(pid)}
    locks = [path for path in Path("/dev/shm").glob("fast*_el") if path.stat().st_ino in held]
    paths = {path.with_name(path.name.removesuffix("_el")) for path in locks}
    return {path for path in paths if "port" not in path.name}


# The node of another test would collect them first.
@pytest.mark.alone
def test_segments_are_private_and_those_of_a_killed_node_are_collected_by_the_next(
    start_node: Callable[..., NodeProcess],
) -> None:
    node = start_node("killed")
    wait_for(lambda: node.status("model"), "its diagnostics")
    held = segments(node.popen.pid)
    if not held:
        pytest.skip("this middleware has no shared-memory segments of Fast DDS")
    assert {stat.S_IMODE(path.stat().st_mode) for path in held} == {0o600}
    node.end(signal.SIGKILL)
    assert all(path.exists() for path in held)
    for path in held:  # as if it had been a while
        os.utime(f"{path}_el", (1e9, 1e9))
    following = start_node("following")
    following.wait_log("that killed processes had left in /dev/shm")
    assert not any(path.exists() for path in held)


SMALL = """
set -e
mount -t tmpfs -o size=16m tmpfs /dev/shm
exec "$@"
"""
LISTEN = """
import sys, subprocess, time
command = [sys.executable, "-m", "seg_perception.onboard.ros.main", "--ros-args", "-p", "diagnostics_period:=0.2"]
node = subprocess.Popen(command)
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
rclpy.init()
listener = rclpy.create_node("listener")
said = []
def heard(message):
    said.extend(status for status in message.status if status.name.endswith(": model"))
listener.create_subscription(DiagnosticArray, "/diagnostics", heard, 10)
end = time.monotonic() + 60
while time.monotonic() < end and not said and node.poll() is None:
    rclpy.spin_once(listener, timeout_sec=0.1)
print("LEVEL", ord(said[-1].level) if said else "nothing", said[-1].message if said else "")
node.terminate()
node.wait()
"""


def test_a_small_shared_memory_is_an_error_with_the_remedy() -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-m", "true"], capture_output=True).returncode:
        pytest.skip("a /dev/shm of its own needs unshare(1) and the right to use it")
    done = subprocess.run(
        [unshare, "-m", "sh", "-c", SMALL, "sh", sys.executable, "-c", LISTEN],
        capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    if "mount:" in done.stderr:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    assert f"LEVEL {ord(DiagnosticStatus.ERROR)}" in done.stdout, done.stdout + done.stderr
    assert "--shm-size" in done.stdout
