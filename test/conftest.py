"""For all tests, in one process or in several at once (`pytest -n`)."""

from __future__ import annotations

import fcntl
import os
import random
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

# Time is measured by benchmarks; a test must not fail because the machine is busy.
settings.register_profile("short", deadline=None, max_examples=40, derandomize=True)
# What `make test-long` asks for: more examples, and others each time.
settings.register_profile("long", deadline=None, max_examples=150)
settings.load_profile("short")

# Before rclpy is initialised: nothing leaves this machine, and no other test process hears this one.
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
# Domains above 100 can collide with the ports that the system hands out.
os.environ.setdefault("ROS_DOMAIN_ID", str(random.randint(1, 100)))
if "PYTEST_XDIST_WORKER" in os.environ:  # gw0, gw1, ..., which share what was given
    _number = int(os.environ["ROS_DOMAIN_ID"]) + 17 * int(os.environ["PYTEST_XDIST_WORKER"][2:])
    os.environ["ROS_DOMAIN_ID"] = str(1 + _number % 100)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """As many as there are cores, but no more than the memory for models and the domains of DDS allow."""
    return min(len(os.sched_getaffinity(0)), 4)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run a test marked `alone` while no other worker runs one."""
    folder = _shared_folder(item.config)
    if folder is None:
        return (yield)
    # Who waits for the others holds the gate, so that none of them begins another test first.
    with (folder / "gate.lock").open("w") as gate, (folder / "tests.lock").open("w") as tests:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(tests, fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        try:
            return (yield)
        finally:
            # Not by closing the file, which a forked child may have, too.
            fcntl.flock(tests, fcntl.LOCK_UN)


def _shared_folder(config: pytest.Config) -> Path | None:
    """The folder that all workers of a run have; None where there is but one process."""
    if not hasattr(config, "workerinput"):
        return None
    factory: pytest.TempPathFactory = config._tmp_path_factory  # type: ignore[attr-defined]
    return factory.getbasetemp().parent
