"""Messages into an MCAP file, frame by frame: what has been written stays readable whatever happens next."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from seg_perception.core.errors import BackendUnavailable, ConfigurationError
from seg_perception.offboard.data.bags.types import definition

SUFFIX = ".mcap"
# As rosbag2 has it: latched topics stay for who comes later. Numbers are those of rmw: keep last, reliable, transient
# local, automatic.
LATCHED_QOS = """- history: 1
  depth: 1
  reliability: 1
  durability: 1
  deadline: {sec: 9223372036, nsec: 854775807}
  lifespan: {sec: 9223372036, nsec: 854775807}
  liveliness: 1
  liveliness_lease_duration: {sec: 9223372036, nsec: 854775807}
  avoid_ros_namespace_conventions: false"""


class BagWriter:
    """Writes one MCAP file as rosbag2 lays it out; to be used with `with`.

    The messages of a frame are in the file when `flush` returns. A file that was never closed lacks only its index.

    Attributes:
        path: of the file.
        counts: messages by topic.
    """

    def __init__(self, path: Path, about: Mapping[str, str]) -> None:
        """Begin a file.

        Args:
            path: must not exist.
            about: what made it; kept in the file under the name of this package.

        Raises:
            ConfigurationError: the file exists, has another suffix or cannot be written.
            BackendUnavailable: the package mcap is not installed.
        """
        try:
            from mcap.writer import Writer
        except ImportError as error:
            message = f"{path}: writing a bag needs the Python packages mcap and rosbags ({error}): pip install mcap"
            raise BackendUnavailable(message) from error
        if path.suffix != SUFFIX:
            raise ConfigurationError(f"output {path}: expected a file name that ends in {SUFFIX}")
        self.path = path
        self._full = False
        self.counts: dict[str, int] = {}
        self._channels: dict[tuple[str, str], int] = {}
        self._schemas: dict[str, int] = {}
        self._qos: dict[str, str] = {}
        self._definitions: dict[str, tuple[str, str]] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("xb")
        except FileExistsError as error:
            raise ConfigurationError(f"output {path}: exists already; remove it or choose another name") from error
        except OSError as error:
            raise ConfigurationError(f"output {path}: cannot be written ({error.strerror or error})") from error
        # Each message closes its chunk, so that none waits in memory. Instance maps compress to a fiftieth.
        self._writer: Any = Writer(self._file, chunk_size=1)
        self._writer.start(profile="ros2", library="seg_perception")
        self._writer.add_metadata("seg_perception", dict(about))

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(self, kind: object, *details: object) -> None:
        """Write the index, also after an error elsewhere: what came before it is whole."""
        try:
            # An index behind half a message would be of no use.
            if not self._full:
                self._writer.finish()
            self._file.close()
        except OSError as error:
            # Closed it is all the same; what could not be written is tried again by this, and given up.
            with suppress(OSError):
                self._file.close()
            if kind is None:
                raise self._failed(error) from error

    def describe(self, topic: str, qos: str = "", kind: str = "", definition: tuple[str, str] = ("", "")) -> None:
        """Say how a topic was offered and its type is defined, before the first message of it.

        Args:
            topic: its name.
            qos: rosbag2's YAML.
            kind: the type that is defined; empty for none.
            definition: its format (`ros2msg` or `ros2idl`) and text.
        """
        self._qos[topic] = qos
        if kind and definition[1]:
            self._definitions[kind] = definition

    def write(self, topic: str, kind: str, time_ns: int, data: bytes) -> None:
        """Write a serialized message.

        Args:
            topic, kind: its topic and type.
            time_ns: when it is taken to be recorded.
            data: CDR.

        Raises:
            ConfigurationError: the disk is full, or the like.
        """
        try:
            channel = self._channels.get((topic, kind)) or self._open_channel(topic, kind)
            self._writer.add_message(channel, log_time=time_ns, publish_time=time_ns, data=data)
        except OSError as error:
            raise self._failed(error) from error
        self.counts[topic] = self.counts.get(topic, 0) + 1

    def flush(self) -> None:
        """See that what was written is in the file.

        Raises:
            ConfigurationError: the disk is full, or the like.
        """
        try:
            self._file.flush()
        except OSError as error:
            raise self._failed(error) from error

    def size(self) -> int:
        """Bytes of the file so far."""
        return os.fstat(self._file.fileno()).st_size

    def _open_channel(self, topic: str, kind: str) -> int:
        if kind not in self._schemas:
            encoding, text = self._definitions.get(kind) or _known(kind)
            self._schemas[kind] = self._writer.register_schema(kind, encoding, text.encode())
        channel = self._channels[topic, kind] = self._writer.register_channel(
            topic, "cdr", self._schemas[kind], {"offered_qos_profiles": self._qos.get(topic, "")}
        )
        return int(channel)

    def _failed(self, error: OSError) -> ConfigurationError:
        self._full = True
        return ConfigurationError(
            f"output {self.path}: cannot be written ({error.strerror or error}); what was written before is whole; "
            "make space or choose another disk"
        )


def _known(kind: str) -> tuple[str, str]:
    """The definition of a type that a bag did not define itself."""
    try:
        return "ros2msg", definition(kind)
    # Whatever rosbags raises for a type it has never heard of; readers that do not look inside need no definition.
    except Exception:
        return "ros2msg", ""
