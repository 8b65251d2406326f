"""What the node would be started with, as far as a doctor has to know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seg_perception.core.errors import BackendUnavailable, ConfigurationError, SegPerceptionError
from seg_perception.core.messages.topics import topic_of


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Parameters of the node.

    Attributes:
        model: as the parameter names it; empty where that cannot be told.
        backend: empty for the one that the file's suffix names.
        classes: class table.
        topics: full names of the image topics.
        use_sim_time: whether the node takes the time from /clock.
    """

    model: str = ""
    backend: str = ""
    classes: str = "auto"
    topics: tuple[str, ...] = ()
    use_sim_time: bool = False


def read_settings(path: Path | None) -> NodeSettings:
    """The settings of a parameter file; without one the model of the package's own file, and no topics.

    Raises:
        ConfigurationError: the file cannot be read or is not one of parameters.
        BackendUnavailable: there is no YAML reader.
    """
    if path is not None:
        return _settings(_parameters(path))
    from seg_perception.core.share import share_directory

    try:
        return NodeSettings(str(_parameters(share_directory() / "config" / "seg_perception.yaml").get("model", "")))
    except SegPerceptionError:
        # A package that is missing is a finding, and not the end of the examination.
        return NodeSettings()


def full_name(topic: str) -> str:
    """A topic's name for a node without namespace."""
    return f"/{topic.removeprefix('~').lstrip('/')}"


def _settings(parameters: Mapping[str, Any]) -> NodeSettings:
    names = parameters.get("camera_names", ["camera"])
    if not isinstance(names, list):
        raise ConfigurationError(f"--params: camera_names: expected a list of names, got {type(names).__name__}")
    if "cameras" in parameters:
        raise ConfigurationError("--params: `cameras` is called `camera_names` now; the node refuses the old name")
    topics = []
    for name in names:
        default = "image_raw" if len(names) == 1 else f"{name}/image_raw"
        topic = full_name(str(parameters.get(f"cameras.{name}.topic", default)))
        topic = topic_of(topic, str(parameters.get(f"cameras.{name}.transport", "raw")))
        # A camera may be configured and switched off.
        if parameters.get(f"cameras.{name}.enabled", True):
            topics.append(topic)
    return NodeSettings(
        str(parameters.get("model", "")),
        str(parameters.get("backend", "")),
        str(parameters.get("classes", "auto")),
        tuple(topics),
        parameters.get("use_sim_time") is True,
    )


def _parameters(path: Path) -> dict[str, Any]:
    """Parameters by full name; of several nodes in one file the later wins."""
    try:
        from seg_perception.core.yaml_files import YamlFileError, read_yaml
    except ImportError as error:
        raise BackendUnavailable(f"{path}: cannot be read without PyYAML ({error}): pip install PyYAML") from error
    try:
        content = read_yaml(path)
    except FileNotFoundError as error:
        raise ConfigurationError(f"parameter file {path}: does not exist") from error
    except YamlFileError as error:
        raise ConfigurationError(f"parameter file {path} {error}") from error
    found = dict(_sections(content))
    if not found:
        raise ConfigurationError(
            f"parameter file {path}: expected `ros__parameters` below the name of a node or `/**`, found none; "
            "config/seg_perception.yaml shows the form"
        )
    return found


def _sections(content: object) -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict):
        for key, value in content.items():
            if key == "ros__parameters":
                yield from _flat(value)
            else:
                yield from _sections(value)


def _flat(values: object, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested names become dotted ones, as ROS has it."""
    if isinstance(values, dict):
        for key, value in values.items():
            if isinstance(value, dict):
                yield from _flat(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value
