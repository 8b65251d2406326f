"""What the node says about itself on /diagnostics: one status for the model, one for each camera."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf, isnan, nan
from time import monotonic
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from seg_perception.core.text import message_text

from .clocks import steady_clock
from .missing_camera import INCOMPATIBLE, PROFILE, WRONG_TYPE, MissingCameraDiagnosis
from .statistics import LOST, TOO_OLD, CameraSnapshot, percentile

ACTIVE = "active"
_HOST = socket.gethostname()
# A camera is silent when nothing came for this many periods, and at least for this many seconds.
_SILENT_PERIODS, _SILENT_SECONDS = 2.0, 2.0
# Most models are open after a few seconds; an engine without a cache takes a minute or two.
_SLOW_OPENING_SECONDS = 30.0
# Results that are older than this tell of clocks that differ, or of a camera that delivers old frames.
_OLD_SECONDS = 5.0
_CLOCKS = (
    "their stamps are not of this node's clock; check that the camera stamps its frames, that both machines' clocks "
    "are set, and that use_sim_time and /clock are as the camera's"
)


@dataclass(frozen=True, slots=True)
class CameraState:
    """What is to be said about a camera.

    Attributes:
        topic: full name of the image topic.
        publishers: how many publishers it has; None when the graph cannot be read.
        counted: everything counted since the start of the node.
        enabled: whether it is subscribed to while the node is active.
        since: when it was subscribed to, on the monotonic clock.
        qos: what is asked of publishers.
        absence: why no frames come; None while they do.
        doubt: why stamps are not believed; empty when they are.
        looked: when the worker last looked for a frame, on the monotonic clock.
        video: what compressed video comes, and what it waits for; both empty where there is none.
    """

    topic: str = ""
    publishers: int | None = 0
    counted: CameraSnapshot = field(default_factory=CameraSnapshot)
    enabled: bool = True
    since: float = -1.0
    qos: str = ""
    absence: MissingCameraDiagnosis | None = None
    doubt: str = ""
    looked: float = inf
    video: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class NodeState:
    """What is to be said about the node.

    Attributes:
        phase: lifecycle state.
        problem: why the last transition failed, or empty.
        identity: what the model is and what runs it.
        stages: median seconds per stage.
        cameras: by name.
        reload_problem: why the last reload changed nothing, or empty.
        frames_at_once: how many frames go through the model together, on average; NaN where nobody knows.
        stuck: what the worker has been at for too long; empty while it is not.
        opening: seconds for which the model is being opened; NaN while it is not.
        shortage: what is wrong with shared memory; empty when nothing is.
        callback_faults: the number of errors in callbacks that were survived, and the last one.
    """

    phase: str
    problem: str
    identity: Mapping[str, str]
    stages: Mapping[str, float]
    cameras: Mapping[str, CameraState]
    reload_problem: str = ""
    frames_at_once: float = nan
    callback_faults: tuple[int, str] = (0, "")
    stuck: str = ""
    opening: float = nan
    shortage: str = ""


class Diagnostics:
    """Publishes the state of a node every period, in every lifecycle state."""

    def __init__(self, node: Node, period: float, state: Callable[[], NodeState]) -> None:
        """Begin.

        Args:
            node: the owner; its name begins the name of each status.
            period: seconds between messages, of real time also when the ROS clock is simulated.
            state: asked each time.
        """
        self._node = node
        self._name = node.get_fully_qualified_name().lstrip("/")
        self._period = period
        self._state = state
        self._before: dict[str, CameraSnapshot] = {}
        self._faults_before = 0
        self._published = monotonic()
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._timer = node.create_timer(period, self.publish, clock=steady_clock())

    def publish_if_due(self) -> None:
        """Publish if the last message is older than a period; for callbacks that keep the timer waiting."""
        if monotonic() - self._published >= self._period:
            self.publish()

    def publish(self) -> None:
        """Publish now."""
        state, now = self._state(), monotonic()
        elapsed, self._published = now - self._published, now
        new_faults = state.callback_faults[0] - self._faults_before
        self._faults_before = state.callback_faults[0]
        statuses = [_named(model_status(state, new_faults), f"{self._name}: model", _HOST)]
        for name, camera in state.cameras.items():
            before = self._before.get(name, CameraSnapshot())
            status = camera_status(state.phase, camera, before, elapsed, now, state.stuck)
            statuses.append(_named(status, f"{self._name}: camera {name}", name))
        self._before = {name: camera.counted for name, camera in state.cameras.items()}
        message = DiagnosticArray(status=statuses)
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)


def model_status(state: NodeState, new_faults: int = 0) -> DiagnosticStatus:
    """Status of the model; `new_faults` errors in callbacks were survived since the last one."""
    faults, last_fault = state.callback_faults
    if state.stuck:
        level, text = DiagnosticStatus.ERROR, f"{state.phase}, but stuck: {state.stuck}; no camera is served"
        text += f"; {state.problem}" if state.problem else ""
    elif not isnan(state.opening):
        slow = state.opening > _SLOW_OPENING_SECONDS
        level = DiagnosticStatus.WARN if slow else DiagnosticStatus.STALE
        text = f"configuring: the model is being opened for {state.opening:.0f} s; open_timeout limits it"
    elif state.problem:
        level, text = DiagnosticStatus.ERROR, state.problem
    elif state.shortage:
        level, text = DiagnosticStatus.ERROR, f"{state.phase}; shared memory: {state.shortage}"
    elif not state.identity:
        level, text = DiagnosticStatus.STALE, f"{state.phase}: no model is open; configure the node"
    elif state.reload_problem:
        level, text = DiagnosticStatus.WARN, f"{state.phase}; the last reload failed: {state.reload_problem}"
    elif new_faults:
        level, text = DiagnosticStatus.WARN, f"{state.phase}; {new_faults} errors in callbacks survived: {last_fault}"
    else:
        level, text = DiagnosticStatus.OK, state.phase
    stages = {f"{stage}_ms": f"{1e3 * seconds:.2f}" for stage, seconds in state.stages.items()}
    batch = {} if isnan(state.frames_at_once) else {"frames_at_once": f"{state.frames_at_once:.2f}"}
    process = {"pid": os.getpid(), "host": _HOST, "callback_faults": faults, "last_callback_fault": last_fault}
    return _status(level, text, {"state": state.phase, **state.identity, **stages, **batch, **process})


def camera_status(
    phase: str, camera: CameraState, before: CameraSnapshot, elapsed: float, now: float, stuck: str = ""
) -> DiagnosticStatus:
    """Status of a camera.

    Args:
        phase: lifecycle state of the node.
        camera: the camera now.
        before: its counts one period ago.
        elapsed: seconds since then.
        now: on the monotonic clock.
        stuck: what the worker has been at for too long; empty while it is not.
    """
    counted = camera.counted
    level, text = _judge(phase, camera, before, elapsed, now)
    if stuck and phase == ACTIVE and camera.enabled:
        # Not the camera's fault.
        level, text = DiagnosticStatus.STALE, f"not served: the node is stuck {stuck}"
    values: dict[str, Any] = {
        "topic": camera.topic,
        "publishers": "unknown" if camera.publishers is None else camera.publishers,
        "received": counted.received,
        "processed": counted.processed,
        "received_hz": f"{(counted.received - before.received) / elapsed:.2f}" if elapsed > 0 else "nan",
        "processed_hz": f"{(counted.processed - before.processed) / elapsed:.2f}" if elapsed > 0 else "nan",
        **{f"dropped_{cause}": count for cause, count in counted.dropped.items()},
        **{f"warned_{kind}": count for kind, count in counted.warned.items()},
        **{f"latency_p{part}_ms": f"{1e3 * percentile(counted.latencies, part / 100):.1f}" for part in (50, 95, 99)},
        "clock_mismatches": counted.mismatched,
        "stamps": camera.doubt or "believed",
        "enabled": camera.enabled,
        "qos": camera.qos,
        "video": camera.video[0],
        "video_waits_for": camera.video[1],
        "no_frames_because": camera.absence.kind if camera.absence else "",
        "last_frame_age_s": _age(counted.last_frame, now),
        "last_fault": counted.last_fault,
        "last_fault_age_s": _age(counted.last_fault_time, now),
    }
    return _status(level, text, values)


def _judge(phase: str, camera: CameraState, before: CameraSnapshot, elapsed: float, now: float) -> tuple[bytes, str]:
    """Level and reason of a camera's status."""
    counted = camera.counted
    if phase != ACTIVE:
        return DiagnosticStatus.STALE, f"the node is {phase}"
    if not camera.enabled:
        return DiagnosticStatus.OK, "disabled by parameter cameras.NAME.enabled; not subscribed"
    # A camera that nobody looks at, because the worker is busy, is not silent.
    silence = min(now, camera.looked) - max(counted.last_frame, camera.since)
    if counted.last_frame < 0 or silence > max(_SILENT_SECONDS, _SILENT_PERIODS * elapsed):
        return _judge_silence(camera, silence)
    faults, processed = counted.faults - before.faults, counted.processed - before.processed
    if faults and not processed:
        return DiagnosticStatus.ERROR, f"no frame can be used: {counted.last_fault}"
    if faults:
        return DiagnosticStatus.WARN, f"{faults} frames lost to faults: {counted.last_fault}"
    if camera.video[1] and not processed:
        return DiagnosticStatus.WARN, f"waiting: {camera.video[1]}"
    late = counted.dropped.get(TOO_OLD, 0) - before.dropped.get(TOO_OLD, 0)
    if late and not processed:
        return DiagnosticStatus.ERROR, f"every frame is older than max_age and dropped; if they are new, {_CLOCKS}"
    lost = counted.dropped.get(LOST, 0) - before.dropped.get(LOST, 0)
    if lost:
        return DiagnosticStatus.WARN, f"{lost} frames lost on the way; {PROFILE}"
    if late:
        return DiagnosticStatus.WARN, f"{late} frames were older than max_age and dropped"
    mismatched = counted.mismatched - before.mismatched
    if mismatched:
        return DiagnosticStatus.WARN, f"{mismatched} frames without a latency: {camera.doubt or _CLOCKS}"
    latency = percentile(counted.latencies, 0.5)
    if latency > _OLD_SECONDS:
        return (
            DiagnosticStatus.WARN,
            f"results come {latency:.1f} s after their frames' stamps; unless so by intention, {_CLOCKS}",
        )
    return DiagnosticStatus.OK, "receiving"


def _judge_silence(camera: CameraState, silence: float) -> tuple[bytes, str]:
    """Level and reason when no frames come."""
    count = "an unknown number of" if camera.publishers is None else camera.publishers
    publishers = f"{count} publisher{'' if count == 1 else 's'}"
    text = f"waiting for {camera.topic} ({publishers})"
    if camera.absence is not None:
        text = f"{text}: {camera.absence.text}"
        if camera.absence.kind in (WRONG_TYPE, INCOMPATIBLE):
            return DiagnosticStatus.ERROR, text
    if camera.counted.last_frame < 0:
        return DiagnosticStatus.WARN, f"no frame yet; {text}"
    return DiagnosticStatus.STALE, f"no frame for {silence:.1f} s; {text}"


def _age(time: float, now: float) -> str:
    return f"{now - time:.1f}" if time >= 0 else ""


def _status(level: bytes, message: str, values: Mapping[str, Any]) -> DiagnosticStatus:
    pairs = [KeyValue(key=key, value=message_text(value)) for key, value in values.items()]
    return DiagnosticStatus(level=level, message=message_text(message), values=pairs)


def _named(status: DiagnosticStatus, name: str, hardware: str) -> DiagnosticStatus:
    status.name, status.hardware_id = name, hardware
    return status
