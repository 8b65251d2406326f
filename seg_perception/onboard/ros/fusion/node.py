"""The lifecycle node `fusion`: what each transition does, and what it says about itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import NameValidationException
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter

from seg_perception.core.errors import ConfigurationError
from seg_perception.core.text import printable

from ..guard import LOG_PERIOD_SECONDS
from ..managed import ACTIVE, FINALIZED, INACTIVE, UNCONFIGURED, ManagedNode
from ..node_parameters import NodeParameters, NodeScheme
from ..statistics import CameraSnapshot, CameraStatistics, FaultLog, percentile
from .diagnostics import FusionDiagnostics, Status
from .inputs import CameraResults, PointSource
from .scheme import SCHEME, FusionSettings, camera_parameters
from .session import FusionSession, parts_of


def _read_settings(node: Node, values: Mapping[str, Any]) -> FusionSettings:
    settings = FusionSettings.from_values(values)
    for camera in settings.cameras:
        names = {"results": camera.results, "info_topic": camera.info_topic, "depth_topic": camera.depth_topic}
        for name, topic in names.items():
            _check_topic(node, f"cameras.{camera.name}.{name}", topic)
    _check_topic(node, "points_topic", settings.points_topic)
    return settings


def _check_topic(node: Node, name: str, topic: str) -> None:
    try:
        node.resolve_topic_name(topic)
    except (NameValidationException, ValueError, RuntimeError) as error:  # rclpy's RCLError is a RuntimeError
        text = " ".join(str(error).split())
        raise ConfigurationError(f"{name}: expected the name of a topic, got {topic!r}: {text}") from error


FUSION = NodeScheme(SCHEME, camera_parameters, _read_settings)


class FusionNode(ManagedNode):
    """Gives the segmenter's instances a place.

    configure reads the parameters and creates the output topics, activate subscribes, deactivate unsubscribes,
    cleanup removes the topics. With autostart the node starts by itself, and again after an error.
    """

    def __init__(self, **arguments: Any) -> None:
        """Create the node; `arguments` are those of rclpy's node."""
        super().__init__("fusion", **arguments)
        self._session: FusionSession | None = None
        self._statistics: dict[str, CameraStatistics] = {}
        self._fault_log = FaultLog(LOG_PERIOD_SECONDS)
        self._settings = NodeParameters(self, FUSION, configured=lambda: self._session is not None, apply=self._apply)
        self._before: dict[str, int] = {}
        self._faults_before = 0
        self._diagnostics = FusionDiagnostics(self, self._settings["diagnostics_period"], self._statuses)
        self.begin(autostart=self._settings["autostart"])

    def set_parameters_atomically(self, parameter_list: Sequence[Parameter[Any]]) -> SetParametersResult:
        """Set parameters as one, as rclpy does; a set may name new cameras and set their parameters too."""
        try:
            return self._settings.set_atomically(parameter_list, super().set_parameters_atomically)
        except Exception as error:
            self.guard.caught("parameters", error)
            return SetParametersResult(successful=False, reason=f"{type(error).__name__}: {printable(error)}")

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the parameters and create the output topics."""
        return self._attempt("configure", INACTIVE, self._open)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and begin to publish."""
        return self._attempt("activate", ACTIVE, lambda: self._with_session(FusionSession.activate))

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End the work and unsubscribe."""
        return self._attempt("deactivate", INACTIVE, lambda: self._with_session(FusionSession.deactivate))

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Remove the output topics."""
        return self._attempt("cleanup", UNCONFIGURED, self._close)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything, from whatever state."""
        self._autostart = None
        return self._attempt("shutdown", FINALIZED, self._close)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything and return to unconfigured; the reason was logged where it occurred."""
        self._phase = UNCONFIGURED
        self._close()
        if self._autostart is not None:
            self._autostart.again()
        return TransitionCallbackReturn.SUCCESS

    def end(self, patience: float) -> bool:
        """Release everything and destroy the node; nothing of it works in other threads."""
        self._close()
        self.destroy_node()
        return True

    def _open(self) -> None:
        settings = self._settings.settings()
        unknown = self._settings.unknown()
        if unknown:
            self.get_logger().warning(
                f"parameters: {', '.join(unknown)} were given, but the node has no such parameters; they are without "
                "effect: check the spelling"
            )
        self._statistics = {part: self._statistics.get(part) or CameraStatistics() for part in parts_of(settings)}
        self._session = FusionSession(self, settings, self._statistics, self._report)

    def _close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _with_session(self, work: Callable[[FusionSession], None]) -> None:
        if self._session is not None:
            work(self._session)

    def _apply(self, settings: FusionSettings) -> None:
        self._with_session(lambda session: session.apply(settings))

    def _report(self, part: str, kind: str, text: str) -> None:
        """Log a fault, once per kind and period."""
        line = self._fault_log.admit(f"{part} {kind}", f"{part}: {text}")
        if line:
            self.get_logger().warning(line)

    def _statuses(self) -> list[Status]:
        session = self._session
        statuses = [self._own_status(session)]
        if session is None:
            return statuses
        sources = {source.part: source for source in session.sources}
        results = {camera.name: camera for camera in session.cameras}
        for part, statistics in self._statistics.items():
            statuses.append(self._source_status(part, statistics.snapshot(), sources.get(part)))
        return statuses + [_results_status(name, session, results.get(name), self._phase) for name in session.placed]

    def _own_status(self, session: FusionSession | None) -> Status:
        faults, last = self.guard.faults
        new, self._faults_before = faults - self._faults_before, faults
        if self._problem:
            level, text = DiagnosticStatus.ERROR, self._problem
        elif session is None:
            level, text = DiagnosticStatus.STALE, f"{self._phase}: configure the node"
        elif new:
            level, text = DiagnosticStatus.WARN, f"{self._phase}; {new} errors in callbacks survived: {last}"
        else:
            level, text = DiagnosticStatus.OK, self._phase
        stages = session.stages.medians() if session else {}
        values: dict[str, object] = {"state": self._phase, "callback_faults": faults, "last_callback_fault": last}
        values |= {f"{stage}_ms": f"{1e3 * seconds:.2f}" for stage, seconds in stages.items()}
        if session:
            values["motion_compensation"] = session.compensation
        return Status("fusion", level, text, values)

    def _source_status(self, part: str, counted: CameraSnapshot, source: PointSource | None) -> Status:
        new = counted.processed - self._before.get(part, 0)
        self._before[part] = counted.processed
        absence = source.topic.absence() if source else ""
        if source is None:
            level, text = DiagnosticStatus.STALE, self._phase
        elif absence:
            level, text = DiagnosticStatus.WARN, f"no points because {absence}"
        elif not new and counted.last_fault:
            level, text = DiagnosticStatus.WARN, f"no results: {counted.last_fault}"
        else:
            level, text = DiagnosticStatus.OK, f"{new} results since the last status"
        values: dict[str, object] = {
            "topic": source.topic.name if source else "",
            "received": counted.received,
            "processed": counted.processed,
            **{f"dropped_{cause}": count for cause, count in counted.dropped.items()},
            **{
                f"latency_p{round(100 * p)}_ms": f"{1e3 * percentile(counted.latencies, p):.1f}"
                for p in (0.5, 0.95, 0.99)
            },
            "last_fault": counted.last_fault,
        }
        name = part if part == "points" else f"depth of {part}"
        return Status(name, level, text, values)


def _results_status(name: str, session: FusionSession, results: CameraResults | None, phase: str) -> Status:
    absence = results.absence() if results else ""
    if results is None:
        level, text = DiagnosticStatus.STALE, phase
    elif absence:
        level, text = DiagnosticStatus.WARN, f"no results of the segmenter because {absence}"
    else:
        level, text = DiagnosticStatus.OK, "results of the segmenter come"
    values: dict[str, object] = {"placed": session.placed[name], "unplaced": session.unplaced[name]}
    if results is not None:
        values |= {
            "views": results.joiner.joined,
            "lost_views": results.joiner.lost,
            "lacking": results.joiner.lacking,
            "refused": sum(topic.refused for topic in results.topics),
            "last_fault": next((topic.last_fault for topic in results.topics if topic.last_fault), ""),
        }
    return Status(f"results of camera {name}", level, text, values)
