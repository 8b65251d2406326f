"""What the statistics count and what the diagnostics make of it."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from threading import Thread
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from seg_perception.onboard.ros.camera import GapCounter
from seg_perception.onboard.ros.diagnostics import CameraState, NodeState, camera_status, model_status
from seg_perception.onboard.ros.missing_camera import (
    INCOMPATIBLE,
    NO_PUBLISHER,
    SILENT,
    WRONG_TYPE,
    MissingCameraDiagnosis,
)
from seg_perception.onboard.ros.statistics import CameraSnapshot, CameraStatistics, FaultLog, StageTimes, percentile

NEW = CameraSnapshot()


def info(number: int | None, publisher: bytes | None = None) -> dict[str, Any]:
    gid = {} if publisher is None else {"publisher_gid": {"implementation_identifier": "x", "data": publisher}}
    return {"publication_sequence_number": number, **gid}


def status(counted: CameraSnapshot, before: CameraSnapshot = NEW, phase: str = "active", publishers: int = 1) -> Any:
    state = CameraState("/front/image_raw", publishers, counted)
    return camera_status(phase, state, before, elapsed=1.0, now=100.0)


def test_frames_of_a_hundred_publishers_are_counted_by_two_threads_at_once() -> None:
    gaps, publishers, rounds = GapCounter(lambda: 100), 100, 50
    missed: list[int] = []

    def take(first: int) -> None:
        for turn in range(rounds):
            for number in range(first, publishers, 2):
                gid = {"data": number.to_bytes(16, "little")}
                missed.append(gaps.missed({"publisher_gid": gid, "publication_sequence_number": 3 * turn + 1}))

    threads = [Thread(target=take, args=(first,)) for first in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(missed) == 2 * publishers * (rounds - 1)


def test_gaps_are_counted_for_each_publisher() -> None:
    gaps = GapCounter(lambda: 2)
    sequence = [(5, b"a"), (6, b"a"), (9, b"a"), (100, b"b"), (10, b"a"), (103, b"b"), (1, b"a"), (3, b"a")]
    assert [gaps.missed(info(*item)) for item in sequence] == [0, 0, 2, 0, 0, 2, 0, 1]


def test_without_the_publisher_s_name_gaps_are_counted_for_a_single_publisher() -> None:
    for publishers, expected in ((1, [0, 3, 0, 1]), (2, [0, 0, 0, 0])):
        gaps = GapCounter(lambda publishers=publishers: publishers)
        assert [gaps.missed(info(number)) for number in (1, 5, 1, 3)] == expected


def test_without_sequence_numbers_nothing_is_counted() -> None:
    gaps = GapCounter(lambda: 1)
    assert [gaps.missed(info(None)), gaps.missed({})] == [0, 0]


def test_publishers_that_come_and_go_take_no_memory() -> None:
    gaps = GapCounter(lambda: 1)
    for number in range(3000):
        gaps.missed(info(1, str(number).encode()))
    assert len(gaps._last) <= 1000


def test_received_is_processed_plus_dropped() -> None:
    statistics = CameraStatistics()
    statistics.taken(missed=3)
    statistics.processed(0.1)
    statistics.taken()
    statistics.dropped("encoding", "plaid")
    statistics.taken()
    statistics.replaced()
    counted = statistics.snapshot()
    assert (counted.received, counted.processed, counted.faults) == (6, 1, 1)
    assert counted.received == counted.processed + sum(counted.dropped.values())
    assert counted.last_fault == "plaid"


def test_only_what_can_be_a_latency_is_one() -> None:
    statistics = CameraStatistics()
    for seconds in (0.0, 0.2, 3599.0, -0.1, 3600.0, 1.7e9):
        statistics.processed(seconds)
    counted = statistics.snapshot()
    assert (counted.processed, counted.latencies, counted.mismatched) == (6, (0.0, 0.2, 3599.0), 3)


def test_percentiles() -> None:
    values = [float(value) for value in range(100)]
    assert [percentile(values, part) for part in (0.0, 0.5, 0.95, 0.99, 1.0)] == [0, 49, 94, 98, 99]
    assert [percentile([1.0, 2.0, 3.0], part) for part in (0.33, 0.34, 0.5, 0.67)] == [1, 2, 2, 3]
    assert percentile(values, 0.55) == 54
    assert percentile([], 0.5) != percentile([], 0.5)
    stages = StageTimes()
    stages.add({"model": 0.2})
    stages.add({"model": 0.1, "paint": 0.3})
    assert stages.medians() == {"model": 0.1, "paint": 0.3}


def test_faults_are_logged_once_per_kind_and_period(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 50.0
    monkeypatch.setattr("seg_perception.onboard.ros.statistics.monotonic", lambda: now)
    log = FaultLog(10.0)
    assert [log.admit("a", "A"), log.admit("a", "A"), log.admit("b", "B")] == ["A", "", "B"]
    now = 60.0
    assert log.admit("a", "A") == "A (1 more like this since it was last logged)"


def test_kinds_of_faults_that_come_and_go_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("seg_perception.onboard.ros.statistics.monotonic", lambda: now)
    log = FaultLog(10.0)
    for number in range(5000):
        now += 1.0
        assert log.admit(f"camera {number}", "A")
        assert not log.admit(f"camera {number}", "A")
    assert len(log._logged) <= 1000
    assert len(log._silent) <= 1000
    assert not log.admit("camera 4999", "A")


def test_a_camera_is_not_silent_while_the_worker_is_busy_and_nobody_looks() -> None:
    frames = CameraSnapshot(received=20, processed=10, last_frame=80.0)
    busy = CameraState("/front/image_raw", 1, frames, since=0.0, looked=80.0)
    assert camera_status("active", busy, frames, elapsed=1.0, now=100.0).level == DiagnosticStatus.OK
    silent = replace(busy, looked=99.5)
    assert camera_status("active", silent, frames, elapsed=1.0, now=100.0).message.startswith("no frame for 19.5 s")


def test_a_camera_s_status_says_why() -> None:
    assert status(NEW, phase="inactive").level == DiagnosticStatus.STALE
    waiting = status(NEW, publishers=0)
    assert waiting.level == DiagnosticStatus.WARN
    assert "/front/image_raw" in waiting.message
    good = CameraSnapshot(received=20, processed=10, last_frame=99.9, latencies=(0.1, 0.2))
    assert status(good).level == DiagnosticStatus.OK
    values = {pair.key: pair.value for pair in status(good).values}
    assert (values["received_hz"], values["processed_hz"], values["latency_p50_ms"]) == ("20.00", "10.00", "100.0")
    assert status(CameraSnapshot(received=20, processed=10, last_frame=90.0)).level == DiagnosticStatus.STALE
    some = CameraSnapshot(20, 10, {"encoding": 2, "superseded": 8}, last_frame=99.9, last_fault="plaid")
    assert status(some).level == DiagnosticStatus.WARN
    assert "plaid" in status(some).message
    assert status(some, before=some).level == DiagnosticStatus.OK
    none = CameraSnapshot(20, 0, {"encoding": 20}, last_frame=99.9, last_fault="plaid")
    assert status(none).level == DiagnosticStatus.ERROR
    lost = CameraSnapshot(20, 18, {"lost": 2}, last_frame=99.9)
    assert (status(lost).level, "fastdds.xml" in status(lost).message) == (DiagnosticStatus.WARN, True)
    all_late = CameraSnapshot(20, 0, {"too_old": 10}, last_frame=99.9)
    assert (status(all_late).level, "use_sim_time" in status(all_late).message) == (DiagnosticStatus.ERROR, True)
    timeless = CameraSnapshot(20, 20, last_frame=99.9, mismatched=3)
    assert (status(timeless).level, "use_sim_time" in status(timeless).message) == (DiagnosticStatus.WARN, True)
    assert status(timeless, before=timeless).level == DiagnosticStatus.OK
    late = CameraSnapshot(20, 10, {"too_old": 10}, last_frame=99.9)
    assert (status(late).level, "max_age" in status(late).message) == (DiagnosticStatus.WARN, True)


def test_the_model_s_status() -> None:
    closed = NodeState("unconfigured", "", {}, {}, {})
    assert model_status(closed).level == DiagnosticStatus.STALE
    failed = NodeState("unconfigured", "model: no such file", {}, {}, {})
    assert (model_status(failed).level, model_status(failed).message) == (DiagnosticStatus.ERROR, "model: no such file")
    ready = model_status(NodeState("active", "", {"device": "CPU"}, {"model": 0.0123}, {}))
    assert ready.level == DiagnosticStatus.OK
    values = {pair.key: pair.value for pair in ready.values}
    assert (values["state"], values["device"], values["model_ms"]) == ("active", "CPU", "12.30")
    assert (values["pid"], values["host"]) == (str(os.getpid()), socket.gethostname())
    kept = model_status(NodeState("active", "", {"device": "CPU"}, {}, {}, reload_problem="no such file"))
    assert (kept.level, "no such file" in kept.message) == (DiagnosticStatus.WARN, True)


def test_a_camera_that_is_silent_says_why() -> None:
    def silent(kind: str, last_frame: float = -1.0, since: float = 50.0) -> Any:
        counted = CameraSnapshot(last_frame=last_frame)
        absence = MissingCameraDiagnosis(kind, "the reason")
        state = CameraState("/front/image_raw", 1, counted, since=since, absence=absence)
        return camera_status("active", state, NEW, elapsed=1.0, now=100.0)

    for kind, never, no_longer in (
        (NO_PUBLISHER, DiagnosticStatus.WARN, DiagnosticStatus.STALE),
        (SILENT, DiagnosticStatus.WARN, DiagnosticStatus.STALE),
        (WRONG_TYPE, DiagnosticStatus.ERROR, DiagnosticStatus.ERROR),
        (INCOMPATIBLE, DiagnosticStatus.ERROR, DiagnosticStatus.ERROR),
    ):
        assert [silent(kind).level, silent(kind, 60.0).level] == [never, no_longer]
        assert "waiting for /front/image_raw (1 publisher): the reason" in silent(kind).message
        assert {pair.key: pair.value for pair in silent(kind).values}["no_frames_because"] == kind
    assert silent(SILENT, 60.0, since=99.5).level == DiagnosticStatus.OK, "only just subscribed to again"


def test_a_disabled_camera_is_in_order() -> None:
    state = CameraState("/front/image_raw", 1, NEW, enabled=False)
    disabled = camera_status("active", state, NEW, elapsed=1.0, now=100.0)
    assert (disabled.level, "disabled" in disabled.message) == (DiagnosticStatus.OK, True)


def test_a_fault_has_an_age() -> None:
    counted = CameraSnapshot(20, 10, {}, last_frame=99.9, last_fault="plaid", last_fault_time=90.0)
    values = {pair.key: pair.value for pair in status(counted, before=counted).values}
    assert (values["last_fault"], values["last_fault_age_s"], values["last_frame_age_s"]) == ("plaid", "10.0", "0.1")


def test_old_stamps_are_a_warning() -> None:
    def aged(seconds: float) -> CameraSnapshot:
        return CameraSnapshot(received=9, processed=9, latencies=(seconds,) * 9, last_frame=99.9)

    assert status(aged(0.2)).level == DiagnosticStatus.OK
    old = status(aged(100.0))
    assert old.level == DiagnosticStatus.WARN
    assert "100.0 s after" in old.message
