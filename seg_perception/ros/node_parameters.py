"""Parameters of a running node: declared, read as a set, and refused when a change would make no sense."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from ..errors import ConfigurationError
from .parameters import CONFIGURE, SCHEME, ParameterSpec, Settings, camera_parameters, check_camera_names


class NodeParameters:
    """Declares the scheme on a node and keeps its values valid."""

    def __init__(self, node: Node, *, configured: Callable[[], bool], apply: Callable[[Settings], None]) -> None:
        """Declare everything.

        Args:
            node: the owner.
            configured: whether the node is configured, so that only live parameters may change.
            apply: told of new settings while the node is configured.
        """
        self._node = node
        self._configured = configured
        self._apply = apply
        self._specs: dict[str, ParameterSpec] = {}
        self._declaring = False
        self._declare({spec.name: spec for spec in SCHEME})
        self._declare_cameras(self["cameras"])
        node.add_on_set_parameters_callback(self._on_set)

    def __getitem__(self, name: str) -> Any:
        return self._node.get_parameter(name).value

    def settings(self) -> Settings:
        """All values as they are now.

        Raises:
            ConfigurationError: they are not valid as a set.
        """
        return self._settings({})

    def _settings(self, changes: Mapping[str, Any]) -> Settings:
        cameras = check_camera_names(changes.get("cameras", self["cameras"]))
        self._declare_cameras(cameras)
        return Settings.from_values({**{name: self[name] for name in self._specs}, **changes})

    def _declare_cameras(self, cameras: Iterable[str]) -> None:
        try:
            self._declare(camera_parameters(check_camera_names(cameras)))
        except ConfigurationError:
            # Told when the node is configured; until then the names can be corrected.
            return

    def _declare(self, specs: Mapping[str, ParameterSpec]) -> None:
        self._declaring = True
        try:
            for name, spec in specs.items():
                if name not in self._specs:
                    self._node.declare_parameter(name, spec.default, spec.descriptor())
                    self._specs[name] = spec
        finally:
            self._declaring = False

    def _on_set(self, parameters: Sequence[Parameter[Any]]) -> SetParametersResult:
        """Accept or refuse a set of changes as one; rclpy keeps the old values of a refused set."""
        if self._declaring:
            return SetParametersResult(successful=True)
        changes = {parameter.name: parameter.value for parameter in parameters if parameter.name in self._specs}
        fixed = [name for name in changes if self._specs[name].when == CONFIGURE]
        if fixed and self._configured():
            return _refusal(f"{', '.join(fixed)}: {CONFIGURE} (cleanup, set, configure)")
        try:
            settings = self._settings(changes)
        except ConfigurationError as error:
            # Of several bad start values one must be corrected first; then the rest can still be bad.
            return _refusal(str(error)) if self._valid() else SetParametersResult(successful=True)
        if changes and self._configured():
            self._apply(settings)
        return SetParametersResult(successful=True)

    def _valid(self) -> bool:
        try:
            self._settings({})
        except ConfigurationError:
            return False
        return True


def _refusal(reason: str) -> SetParametersResult:
    return SetParametersResult(successful=False, reason=reason)
