"""The lifecycle node `segmenter`: what each transition does, and what happens when something goes wrong."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Mapping, Sequence
from math import nan
from time import monotonic
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.utilities import get_rmw_implementation_identifier

from seg_perception.core.errors import ConfigurationError
from seg_perception.core.text import message_text, printable
from seg_perception.onboard.pipeline.segmenter import Segmenter

from .camera import Camera
from .diagnostics import ACTIVE, CameraState, Diagnostics, NodeState
from .graph import count_publishers
from .guard import LOG_PERIOD_SECONDS
from .managed import FINALIZED, INACTIVE, UNCONFIGURED, ManagedNode
from .node_parameters import NodeParameters, NodeScheme
from .opening import Opening
from .parameters import Settings
from .reload import Reload
from .scheme import SCHEME, camera_parameters
from .session import Session
from .shared_memory import make_private, own_segments, shortage, wanted_transport
from .statistics import CameraSnapshot, CameraStatistics, FaultLog
from .topics import check_topics, message_type


def _read_settings(node: Node, values: Mapping[str, Any]) -> Settings:
    settings = Settings.from_values(values)
    check_topics(node, settings)
    return settings


SEGMENTER = NodeScheme(SCHEME, camera_parameters, _read_settings)


class SegmenterNode(ManagedNode):
    """Turns camera images into instance masks.

    configure opens the model, activate subscribes, deactivate unsubscribes, cleanup closes the model. A transition
    that fails for a reason of the user's (a bad parameter, an unusable model) returns FAILURE, so the node stays in the
    state it was in; anything unexpected returns ERROR, and error processing releases everything and returns the node
    to unconfigured. With autostart the node then starts again by itself, after a delay that grows.
    """

    # Also a node whose parameters were refused is destroyed.
    _reload: Reload | None = None
    _opening: Opening | None = None
    # Those that may still be at work.
    _openings: Sequence[Opening] = ()
    _patience: float | None = None

    def __init__(self, **arguments: Any) -> None:
        """Create the node; `arguments` are those of rclpy's node."""
        super().__init__("segmenter", **arguments)
        self._failure = ""
        self._session: Session | None = None
        # A model is still at work that nobody waits for, in a session that is closed, or while it is opened.
        self._leaked = False
        self._statistics: dict[str, CameraStatistics] = {}
        self._fault_log = FaultLog(LOG_PERIOD_SECONDS)
        self._settings = NodeParameters(
            self, SEGMENTER, configured=lambda: self._session is not None, apply=self._apply
        )
        self._diagnostics = Diagnostics(self, self._settings["diagnostics_period"], self._state)
        self._reload = Reload(self, lambda: self._session, self._settings)
        self._segments = own_segments()
        make_private(self._segments)
        self._transport = wanted_transport(get_rmw_implementation_identifier(), self._segments)
        self.begin(autostart=self._settings["autostart"])

    def set_parameters_atomically(self, parameter_list: Sequence[Parameter[Any]]) -> SetParametersResult:
        """Set parameters as one, as rclpy does; a set may name new cameras and set their parameters too."""
        try:
            return self._settings.set_atomically(parameter_list, super().set_parameters_atomically)
        except Exception as error:
            self.guard.caught("parameters", error)
            return SetParametersResult(successful=False, reason=f"{type(error).__name__}: {printable(error)}")

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the parameters, open the model and create the output topics."""
        return self._attempt("configure", INACTIVE, self._open)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the cameras and begin to publish."""
        return self._attempt("activate", ACTIVE, self._activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End the work and unsubscribe. After a failure of the worker: the way into error processing."""
        if self._failure:
            return TransitionCallbackReturn.ERROR
        return self._attempt("deactivate", INACTIVE, self._deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Close the model and remove the output topics."""
        return self._attempt("cleanup", UNCONFIGURED, self.release)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything, from whatever state."""
        self._autostart = None
        return self._attempt("shutdown", FINALIZED, self.release)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything and return to unconfigured; the reason was logged where it occurred."""
        if self._failure:
            self._problem, self._failure = self._failure, ""
        self._phase = UNCONFIGURED
        try:
            self.release()
        except Exception:
            details = message_text(traceback.format_exc())
            self.get_logger().error(f"error processing: could not release everything\n{details}")
        if self._autostart is not None:
            self._autostart.again()
        else:
            self.get_logger().warning("back in state unconfigured after an error; configure the node to try again")
        return TransitionCallbackReturn.SUCCESS

    def release(self) -> None:
        """Close the session, if there is one."""
        self._close_session(None)

    def end(self, patience: float) -> bool:
        """Release everything and destroy the node, without waiting for a model that is being opened.

        Args:
            patience: seconds to wait for frames in progress.

        Returns:
            Whether nothing of the node is at work any more; an interpreter must not end in the middle of that.
        """
        released = self._close_session(patience)
        self._patience = 0.0
        self.destroy_node()
        return released and self._all_opened()

    def destroy_node(self) -> None:
        """Destroy the node, once nothing of it is at work any more."""
        self._all_opened()
        super().destroy_node()

    def _all_opened(self) -> bool:
        """Return whether no model is being opened; that is waited for, if there is patience."""
        reload_ended = self._reload is None or self._reload.ended(self._patience)
        return reload_ended and all(opening.ended(self._patience) for opening in self._openings)

    def _close_session(self, patience: float | None) -> bool:
        session, self._session = self._session, None
        if session is not None and not session.close(patience):
            self._leaked = True
        return not self._leaked

    def _open(self) -> None:
        self._failure = ""
        if self._reload is not None:
            self._reload.problem = ""
        settings = self._settings.settings()
        unknown = self._settings.unknown()
        if unknown:
            self.get_logger().warning(
                f"parameters: {', '.join(unknown)} were given, but the node has no such parameters (or `camera_names` "
                "lacks the camera); they are without effect: check the spelling"
            )
        # Those of cameras that are gone are dropped.
        self._statistics = {
            camera.name: self._statistics.get(camera.name) or CameraStatistics() for camera in settings.cameras
        }
        for camera in settings.cameras:
            message_type(camera)
        in_use = self._settings.of_the_model()
        segmenter = self._opened(settings)
        if segmenter is None:
            raise ConfigurationError("the node is ending; the model is not opened")
        self._session = Session(self, settings, segmenter, self._statistics, report=self._report, fail=self._fail)
        if self._reload is not None:
            self._reload.in_use = in_use
        _settle_memory()
        identity = ", ".join(f"{key} {value}" for key, value in self._session.identity.items())
        self.get_logger().info(f"model ready: {identity}")

    def _opened(self, settings: Settings) -> Segmenter | None:
        """The opened model; the executor waits here, and diagnostics with it, so they are published from here."""
        opening = self._opening = Opening(self.get_logger(), settings, trial=settings.trial == "always")
        self._openings = [*(earlier for earlier in self._openings if not earlier.ended(0.0)), opening]
        try:
            meanwhile = self.guard.wrap("diagnostics", self._diagnostics.publish_if_due)
            return opening.wait(self.context.ok, meanwhile)
        finally:
            self._opening = None

    def _activate(self) -> None:
        if self._session is not None:
            self._session.activate()
            if all(camera.settings.enabled for camera in self._session.cameras):
                self._warn_of_overrides()

    def _warn_of_overrides(self) -> None:
        unknown = self._settings.unknown_overrides()
        if unknown:
            self.get_logger().warning(
                f"parameters: {', '.join(unknown)} were given, but no topic of the node takes them; they are without "
                "effect: they need full names of topics, and a subscription has reliability, durability, deadline, "
                "liveliness and liveliness_lease_duration"
            )

    def _deactivate(self) -> None:
        if self._session is not None:
            self._session.deactivate()

    def _apply(self, settings: Settings) -> None:
        if self._session is not None:
            self._session.apply(settings)

    def _report(self, camera: str, kind: str, text: str) -> None:
        """Log a fault of a frame, once per kind and period; called by the worker."""
        line = self._fault_log.admit(f"{camera} {kind}", f"camera {camera}: {text}")
        if line:
            self.get_logger().warning(line)

    def _fail(self, error: BaseException) -> None:
        """Have the executor take the node through error processing; called by the worker as its last deed."""
        if not self.context.ok() or self.executor is None:
            return
        details = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        self.get_logger().error(f"unexpected error while processing a frame:\n{message_text(details)}")
        self._failure = f"unexpected error while processing a frame: {type(error).__name__}: {printable(error)}"
        self.executor.create_task(self.guard.wrap("error processing", self._process_failure))

    def _process_failure(self) -> None:
        # The state machine knows no way from active into error processing but through a transition that fails.
        if self._failure and self._phase == ACTIVE:
            self._guarded(self.trigger_deactivate, TransitionCallbackReturn.ERROR)

    def _state(self) -> NodeState:
        session = self._session
        live = {camera.settings.name: camera for camera in session.cameras} if session else {}
        return NodeState(
            self._phase,
            self._problem,
            session.identity if session else {},
            session.stages.medians() if session else {},
            {name: self._camera_state(name, live.get(name)) for name in self._settings["camera_names"] or ()},
            self._reload.problem if self._reload else "",
            session.stages.frames_at_once() if session else nan,
            self.guard.faults,
            session.stuck() if session else "",
            monotonic() - self._opening.begun if self._opening else nan,
            shortage(self._transport, self._segments),
        )

    def _camera_state(self, name: str, camera: Camera | None) -> CameraState:
        statistics = self._statistics.get(name)
        counted = statistics.snapshot() if statistics else CameraSnapshot()
        if camera is None:
            return CameraState(counted=counted)
        return CameraState(
            camera.resolved_topic,
            count_publishers(self, camera.resolved_topic),
            counted,
            enabled=camera.settings.enabled,
            since=camera.since,
            qos=camera.qos,
            absence=camera.absence,
            doubt=camera.doubt,
            looked=camera.looked,
            video=camera.video,
        )


def _settle_memory() -> None:
    """Leave the objects of now out of later cyclic collections, which hold the interpreter for 90 ms to walk 50,000."""
    gc.unfreeze()  # else what an earlier model left in cycles would stay
    gc.collect()
    gc.freeze()
