"""The package builds with colcon, and its executables start from the install space."""

from __future__ import annotations

import importlib.util
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "seg_perception"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("colcon_core") is None, reason="colcon is not installed in this environment"
)


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The install space of a fresh build."""
    folder = tmp_path_factory.mktemp("colcon")
    command = [sys.executable, "-m", "colcon", "--log-base", str(folder / "log"), "build"]
    command += ["--base-paths", str(ROOT), "--packages-select", PACKAGE, "--event-handlers", "console_direct+"]
    command += ["--build-base", str(folder / "build"), "--install-base", str(folder / "install")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "install"


@pytest.fixture(scope="module")
def domain() -> int:
    """A DDS domain that only this test and its children speak in."""
    return random.SystemRandom().randint(1, 100)


@pytest.fixture
def sourced(install: Path, domain: int) -> list[str]:
    """Prefix of a command that runs as in a new terminal in which only the install space was sourced.

    Nothing else is inherited: what this process has in LD_LIBRARY_PATH and PYTHONPATH must not be what makes the
    executables work.
    """
    kept = {name: os.environ[name] for name in ("HOME", "TMPDIR", "LANG") if name in os.environ}
    kept |= {
        "PATH": os.defpath,
        "ROS_DOMAIN_ID": str(domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_LOG_DIR": str(install.parent / "ros_log"),
    }
    # From elsewhere than the checkout, which Python would put on its path first.
    script = f'cd {shlex.quote(str(install.parent))} && source {shlex.quote(str(install / "setup.bash"))} && exec "$@"'
    return ["env", "-i", *(f"{k}={v}" for k, v in kept.items()), "bash", "-c", script, "bash"]


def executable(install: Path, name: str) -> str:
    return str(install / PACKAGE / "lib" / PACKAGE / name)


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


def test_share_has_what_is_looked_up_there(install: Path) -> None:
    prefix = install / PACKAGE
    assert (prefix / "share/ament_index/resource_index/packages" / PACKAGE).is_file()
    share = prefix / "share" / PACKAGE
    assert (share / "package.xml").is_file()
    for folder in ("launch", "config", "engines"):
        # Not what git does not know: others may be writing to the folder meanwhile.
        tracked = run(["git", "-C", str(ROOT), "ls-files", "-z", folder])
        if tracked.returncode != 0:
            pytest.skip("the sources are not a git checkout, so it is unknown which files belong to them")
        for name in filter(None, tracked.stdout.split("\0")):
            # Weights for training stay in the checkout.
            if Path(name).name.startswith(".") or name.endswith(".safetensors"):
                continue
            installed = share / name
            assert installed.is_file(), f"{name} is not in the install space"
            assert installed.read_bytes() == (ROOT / name).read_bytes(), f"{name} differs in the install space"


def test_interfaces_stay_out(install: Path) -> None:
    assert not list(install.rglob("*vision_msgs*"))


def test_package_comes_from_the_install_space(install: Path, sourced: list[str]) -> None:
    done = run([*sourced, sys.executable, "-c", f"import {PACKAGE}; print({PACKAGE}.__file__)"])
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(install)


def test_the_schema_of_manifests_comes_with_the_package(install: Path, sourced: list[str]) -> None:
    code = f"from {PACKAGE}.core.manifest import SCHEMA; import json; json.loads(SCHEMA.read_text()); print(SCHEMA)"
    done = run([*sourced, sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(install)


def test_command_line_starts(install: Path, sourced: list[str]) -> None:
    done = run([*sourced, executable(install, PACKAGE), "--help"])
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()


def node_names(domain: int) -> Iterator[list[str]]:
    """Yields the names of the nodes in the domain, again and again."""
    rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed in this environment")
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    try:
        node = rclpy.create_node("observer", context=context)
        while True:
            yield node.get_node_names()
    finally:
        context.try_shutdown()


def test_node_starts_and_stops(
    install: Path, sourced: list[str], domain: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed in this environment")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    log = tmp_path / "segmenter.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*sourced, executable(install, "segmenter")],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 60
        for names in node_names(domain):
            assert process.poll() is None, f"segmenter ended with {process.returncode}:\n{log.read_text()}"
            if "segmenter" in names:
                break
            assert time.monotonic() < deadline, f"no node segmenter after 60 s, but {names}:\n{log.read_text()}"
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
    finally:
        process.kill()
        process.wait()
    # An interrupted process may end by the signal or with 0, but not with an error.
    assert process.returncode in (0, -signal.SIGINT), log.read_text()
    assert not re.search("Traceback", log.read_text()), log.read_text()
