"""Parameters of a running node: declared, read as a set, and refused when a change would make no sense."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterValueException, ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from seg_perception.core.errors import ConfigurationError
from seg_perception.core.text import message_text

from .parameters import check_camera_names
from .scheme import CONFIGURE, RELOAD, START, ParameterSpec

_OVERRIDES = "qos_overrides."
# A name that is the prefix of others (cameras.front.topic) cannot be written into a parameter file by ros2cli.
_OLD_NAME = "cameras"
_RENAMED = "`cameras` is called `camera_names` now; cameras.NAME.topic and the others keep their names"


_Settings = TypeVar("_Settings")


@dataclass(frozen=True, slots=True)
class NodeScheme(Generic[_Settings]):
    """The parameters of a kind of node, and what they mean as a set.

    Attributes:
        specs: of the node.
        of_cameras: those of some cameras, by full name.
        read: validates all values, by full name, and groups them; raises ConfigurationError where they are impossible.
    """

    specs: tuple[ParameterSpec, ...]
    of_cameras: Callable[[Iterable[str]], dict[str, ParameterSpec]]
    read: Callable[[Node, Mapping[str, Any]], _Settings]


class NodeParameters(Generic[_Settings]):
    """Declares the scheme on a node and keeps its values valid."""

    def __init__(
        self,
        node: Node,
        scheme: NodeScheme[_Settings],
        *,
        configured: Callable[[], bool],
        apply: Callable[[_Settings], None],
    ) -> None:
        """Declare everything.

        Args:
            node: the owner.
            scheme: its parameters.
            configured: whether the node is configured, so that only live parameters may change.
            apply: told of new settings while the node is configured.

        Raises:
            ParameterException: of rclpy, a start value has the wrong type or is out of range.
        """
        self._node = node
        self._scheme = scheme
        self._configured = configured
        self._apply = apply
        self._specs: dict[str, ParameterSpec] = {}
        self._declaring = False
        # Humble cannot tell that it has stored a set; there the change takes effect when we accept it, and no other
        # callback is asked after ours.
        self._told_later = hasattr(node, "add_post_set_parameters_callback")
        if _OLD_NAME in self._overrides():
            raise InvalidParameterValueException(_OLD_NAME, self._overrides()[_OLD_NAME].value, _RENAMED)
        self._declare({spec.name: spec for spec in scheme.specs}, [])
        self._declare_cameras(self["camera_names"])
        node.add_on_set_parameters_callback(self._on_set)
        if self._told_later:
            node.add_post_set_parameters_callback(self._on_stored)

    def __getitem__(self, name: str) -> Any:
        return self._node.get_parameter(name).value

    def settings(self) -> _Settings:
        """All values as they are now.

        Raises:
            ConfigurationError: they are not valid as a set.
        """
        return self._settings({})

    def of_the_model(self) -> dict[str, Any]:
        """Values of the parameters that say which model runs and how."""
        return {name: self[name] for name, spec in self._specs.items() if spec.when == RELOAD}

    def put_back(self, tried: Mapping[str, Any], used: Mapping[str, Any]) -> list[str]:
        """After a failure, have parameters say what is in use; those that were set again meanwhile are left alone.

        Args:
            tried: values that came to nothing.
            used: values that are in use.

        Returns:
            Names of those that have another value now.
        """
        names = [name for name, value in used.items() if self[name] == tried.get(name) != value]
        self._node.set_parameters_atomically([Parameter(name, value=used[name]) for name in names])
        return names

    def unknown(self) -> list[str]:
        """Names in the parameter file or on the command line that the node does not have; rclpy drops them silently."""
        return [name for name in self._without_effect() if not name.startswith(_OVERRIDES)]

    def unknown_overrides(self) -> list[str]:
        """QoS overrides that no topic has taken; to be asked once all topics are there."""
        return [name for name in self._without_effect() if name.startswith(_OVERRIDES)]

    def set_atomically(
        self, parameters: Sequence[Parameter[Any]], store: Callable[[list[Parameter[Any]]], SetParametersResult]
    ) -> SetParametersResult:
        """Have rclpy set parameters as one; new names of cameras bring their parameters along.

        rclpy refuses a set with undeclared parameters before anybody is asked, so those of the cameras that the set
        names are declared first, and removed again when it is refused.

        Args:
            parameters: to be set.
            store: rclpy's own way to do it.
        """
        declared: list[str] | None = None
        stored = False
        try:
            for parameter in parameters:
                if parameter.name == _OLD_NAME:
                    return _refusal(_RENAMED)
                if parameter.name == "camera_names" and parameter.type_ == Parameter.Type.STRING_ARRAY:
                    declared = self._declare_cameras(parameter.value)
            result = store(list(parameters))
            stored = bool(result.successful)
            if stored and declared is not None:
                self._forget_removed_cameras()
            return result
        except ParameterException as error:
            return _refusal(str(error))
        finally:
            if not stored:
                self._undeclare(declared or ())

    def _forget_removed_cameras(self) -> None:
        """Remove the parameters of cameras that are named no more, so that names that come and go pile nothing up."""
        kept = self._scheme.of_cameras(check_camera_names(self["camera_names"]))
        prefix = "cameras."
        self._undeclare([name for name in self._specs if name.startswith(prefix) and name not in kept])

    def _without_effect(self) -> list[str]:
        known = self._specs
        return sorted(name for name in self._overrides() if name not in known and not self._node.has_parameter(name))

    def _overrides(self) -> Mapping[str, Any]:
        """Values from parameter files and the command line: not public in rclpy, the same from Humble on."""
        given: Mapping[str, Any] = getattr(self._node, "_parameter_overrides", {})
        return given

    def _settings(self, changes: Mapping[str, Any]) -> _Settings:
        cameras = check_camera_names(changes.get("camera_names", self["camera_names"]))
        # A camera whose parameters were not declared with its name has the defaults.
        defaults = {name: spec.default for name, spec in self._scheme.of_cameras(cameras).items()}
        return self._scheme.read(self._node, {**defaults, **{name: self[name] for name in self._specs}, **changes})

    def _declare_cameras(self, cameras: Iterable[str]) -> list[str]:
        """Declare the parameters of cameras, all or nothing; the names of those that are new."""
        try:
            names = check_camera_names(cameras)
        except ConfigurationError:
            # Told when the node is configured; until then the names can be corrected.
            return []
        declared: list[str] = []
        try:
            self._declare(self._scheme.of_cameras(names), declared)
        except ParameterException:
            self._undeclare(declared)
            raise
        return declared

    def _declare(self, specs: Mapping[str, ParameterSpec], declared: list[str]) -> None:
        """Declare what is not declared yet; appends the names to `declared`."""
        self._declaring = True
        try:
            for name, spec in specs.items():
                if name not in self._specs:
                    self._node.declare_parameter(name, spec.default, descriptor(spec))
                    self._specs[name] = spec
                    declared.append(name)
        finally:
            self._declaring = False

    def _undeclare(self, names: Iterable[str]) -> None:
        for name in names:
            self._node.undeclare_parameter(name)
            del self._specs[name]

    def _on_set(self, parameters: Sequence[Parameter[Any]]) -> SetParametersResult:
        """Accept or refuse a set of changes as one; rclpy keeps the old values of a refused set."""
        if self._declaring:
            return SetParametersResult(successful=True)
        changes = {parameter.name: parameter.value for parameter in parameters if parameter.name in self._specs}
        removed = [name for name, value in changes.items() if value is None]
        if removed:
            return _refusal(f"{', '.join(removed)}: cannot be removed; set a value instead")
        fixed = [name for name in changes if self._specs[name].when == CONFIGURE]
        if fixed and self._configured():
            return _refusal(f"{', '.join(fixed)}: {CONFIGURE} (cleanup, set, configure)")
        try:
            settings = self._settings(changes)
        except ConfigurationError as error:
            # Of several bad start values one must be corrected first; then the rest can still be bad.
            return _refusal(str(error)) if self._valid() else SetParametersResult(successful=True)
        if changes and self._configured() and not self._told_later:
            self._apply(settings)
        return SetParametersResult(successful=True)

    def _on_stored(self, parameters: Sequence[Parameter[Any]]) -> None:
        """Put a set into effect that rclpy has accepted and stored."""
        if not self._declaring and self._configured() and any(given.name in self._specs for given in parameters):
            self._apply(self.settings())

    def _valid(self) -> bool:
        try:
            self._settings({})
        except ConfigurationError:
            return False
        return True


def descriptor(spec: ParameterSpec) -> ParameterDescriptor:
    """Return the descriptor that rclpy checks values of a parameter against."""
    message = ParameterDescriptor(
        description=spec.text,
        additional_constraints=spec.when,
        read_only=spec.when == START,
        dynamic_typing=spec.any_type,
    )
    if spec.range_text and isinstance(spec.default, float):
        message.floating_point_range = [FloatingPointRange(from_value=spec.lowest, to_value=spec.highest)]
    elif spec.range_text:
        message.integer_range = [IntegerRange(from_value=int(spec.lowest), to_value=int(spec.highest), step=1)]
    return message


def _refusal(reason: str) -> SetParametersResult:
    return SetParametersResult(successful=False, reason=message_text(reason))
