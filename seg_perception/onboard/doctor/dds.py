"""Whether camera images fit through the middleware: the Fast DDS profile, shared memory, sockets."""

from __future__ import annotations

import os
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .finding import Finding, Level
from .surroundings import Surroundings

GROUP = "dds"
FAST_DDS, CYCLONE, ZENOH = "rmw_fastrtps", "rmw_cyclonedds", "rmw_zenoh"
# The name from Kilted (Fast DDS 3) on, which still knows the other, and the one before.
NEW_VARIABLE, OLD_VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"
OLD_DISTRIBUTIONS = ("humble", "iron", "jazzy")
# A 1080p bgr8 image, where no camera was measured; and what surrounds the pixels in a message.
USUAL_IMAGE_BYTES, MESSAGE_BYTES = 1920 * 1080 * 3, 1024
# Images that the segment of one process should hold, as config/fastdds.xml says.
SEGMENT_IMAGES = 4
_MIB = 1 << 20
# As read in the sources of rmw_zenoh for Jazzy, Kilted and Lyrical (0.10.5): shared memory is off, its pool 48 MiB.
_ZENOH_SHARED, _ZENOH_POOL = "transport/shared_memory/enabled=true", 48 * _MIB
# Fragments of a few images that are on their way; the ROS documentation advises this for large messages, too.
_FRAGMENT_BYTES = 128 * _MIB


class Transport(NamedTuple):
    """The shared-memory transport of a profile, in bytes."""

    segment: int
    message: int


def check_dds(around: Surroundings, distribution: str, rmw: str, image_bytes: int) -> list[Finding]:
    """Look at what limits large images.

    Args:
        around: the machine.
        distribution: of ROS; empty for none.
        rmw: the middleware, as `rmw_fastrtps_cpp`; empty for none.
        image_bytes: the largest image that a camera publishes; 0 where none was seen.
    """
    if not rmw:
        return [Finding(GROUP, "profile", Level.SKIPPED, "no ROS here"), _sockets(around, image_bytes, False)]
    if not rmw.startswith(FAST_DDS):
        return [_other_middleware(around, rmw, image_bytes), _sockets(around, image_bytes, False)]
    profile, transport = check_profile(around, distribution, image_bytes)
    return [profile, check_shared_memory(around, transport), _sockets(around, image_bytes, transport is not None)]


def check_profile(around: Surroundings, distribution: str, image_bytes: int) -> tuple[Finding, Transport | None]:
    """Return whether a profile with room for the images is active in this shell; its shared memory, if it has some."""
    old = distribution in OLD_DISTRIBUTIONS
    name = OLD_VARIABLE if old else NEW_VARIABLE
    value = around.environment.get(name, "") or ("" if old else around.environment.get(OLD_VARIABLE, ""))
    advice = (
        f"export {name}={_ours()}; the launch file sets it for the node, but the camera driver's process and whoever "
        "receives images need it too"
    )
    if not value:
        return _without_profile(around, name, advice), None
    try:
        transport = shared_memory(Path(value).expanduser())
    except (OSError, ElementTree.ParseError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return Finding(GROUP, "profile", Level.FAIL, f"{name}={value} cannot be read ({reason})", advice), None
    if transport is None:
        text = f"{value}: its default participant has no shared-memory transport of its own"
        return Finding(GROUP, "profile", Level.WARN, text, advice), None
    needed = (image_bytes or USUAL_IMAGE_BYTES) + MESSAGE_BYTES
    size = f"segment {_mib(transport.segment)}, messages up to {_mib(transport.message)}"
    whose = "the largest image measured" if image_bytes else "a 1080p image"
    if transport.message < needed or transport.segment < SEGMENT_IMAGES * needed:
        text = f"{value}: {size}; {whose} needs messages of {_mib(needed)} and {SEGMENT_IMAGES} times that as segment"
        return Finding(GROUP, "profile", Level.WARN, text, "size it as config/fastdds.xml says"), transport
    return Finding(GROUP, "profile", Level.OK, f"{value}: {size}, enough for {whose}"), transport


def shared_memory(path: Path) -> Transport | None:
    """The shared-memory transport that a Fast DDS profile gives each participant; None if it gives none.

    Raises:
        OSError: the file cannot be read.
        xml.etree.ElementTree.ParseError: it is not XML.
        ValueError: a size is not a number.
    """
    root = ElementTree.parse(path).getroot()
    found = {}
    for descriptor in _named(root, "transport_descriptor"):
        if _text(descriptor, "type") == "SHM":
            # What Fast DDS takes where the profile is silent.
            sizes = Transport(int(_text(descriptor, "segment_size") or 524288), 0)
            found[_text(descriptor, "transport_id")] = sizes._replace(
                message=int(_text(descriptor, "maxMessageSize") or 65500)
            )
    for participant in _named(root, "participant"):
        if participant.get("is_default_profile", "").lower() in ("true", "1"):
            used = next(_named(participant, "userTransports"), None)
            names = [] if used is None else [(each.text or "").strip() for each in used]
            return next((found[name] for name in names if name in found), None)
    return None


def check_shared_memory(around: Surroundings, transport: Transport | None) -> Finding:
    """Room in /dev/shm, where the segments of all processes lie."""
    path = around.root / "dev/shm"
    try:
        usage = shutil.disk_usage(path)
    except OSError as error:
        advice = "mount a tmpfs there; Fast DDS falls back to UDP without it"
        return Finding(GROUP, "/dev/shm", Level.WARN, f"cannot be looked at ({error.strerror})", advice)
    segment = transport.segment if transport else 524288
    text = f"{_mib(usage.free)} of {_mib(usage.total)} free"
    advice = (
        "each process that publishes images takes a segment there: start containers with --shm-size=1g or --ipc=host; "
        "remove what ended processes left behind (`fastdds shm clean`)"
    )
    if not os.access(path, os.W_OK):
        return Finding(GROUP, "/dev/shm", Level.FAIL, f"this user cannot write there; {text}", "chmod 1777 /dev/shm")
    if usage.free < segment:
        return Finding(GROUP, "/dev/shm", Level.FAIL, f"{text}, less than one segment of {_mib(segment)}", advice)
    if usage.free < 3 * segment:
        text = f"{text}, less than three segments of {_mib(segment)}"
        return Finding(GROUP, "/dev/shm", Level.WARN, text, advice)
    return Finding(GROUP, "/dev/shm", Level.OK, text)


def _without_profile(around: Surroundings, name: str, advice: str) -> Finding:
    other = around.environment.get(NEW_VARIABLE, "")
    if name == OLD_VARIABLE and other:
        text = f"{NEW_VARIABLE} is set, but this distribution's Fast DDS reads {OLD_VARIABLE} only"
        return Finding(GROUP, "profile", Level.WARN, text, f"export {OLD_VARIABLE}={other}")
    transports = around.environment.get("FASTDDS_BUILTIN_TRANSPORTS", "")
    if transports.startswith("LARGE_DATA"):
        return Finding(GROUP, "profile", Level.OK, f"none; FASTDDS_BUILTIN_TRANSPORTS={transports} carries images")
    text = "none in this shell: stock Fast DDS loses most of a stream of camera images between two processes"
    return Finding(GROUP, "profile", Level.WARN, text, advice)


def _other_middleware(around: Surroundings, rmw: str, image_bytes: int) -> Finding:
    if rmw.startswith(ZENOH):
        return _zenoh(around, rmw, image_bytes)
    if rmw.startswith(CYCLONE) and not around.environment.get("CYCLONEDDS_URI"):
        text = f"{rmw} without CYCLONEDDS_URI: images go through UDP, also on this machine"
        advice = "raise the socket limits below and set SocketReceiveBufferSize in a file that CYCLONEDDS_URI names"
        return Finding(GROUP, "profile", Level.WARN, text, advice)
    return Finding(GROUP, "profile", Level.SKIPPED, f"{rmw} takes no Fast DDS profile; not judged")


def _zenoh(around: Surroundings, rmw: str, image_bytes: int) -> Finding:
    """Return whether Zenoh's shared memory is on and holds images."""
    if around.environment.get("ZENOH_SESSION_CONFIG_URI"):
        return Finding(GROUP, "profile", Level.SKIPPED, f"{rmw}: a session configuration of your own is not judged")
    needed = SEGMENT_IMAGES * ((image_bytes or USUAL_IMAGE_BYTES) + MESSAGE_BYTES)
    override = around.environment.get("ZENOH_CONFIG_OVERRIDE", "").replace(" ", "")
    pool = around.environment.get("ZENOH_SHM_ALLOC_SIZE", "") or str(_ZENOH_POOL)
    if _ZENOH_SHARED in override.split(";") and pool.isdecimal() and int(pool) >= needed:
        return Finding(GROUP, "profile", Level.OK, f"{rmw}: shared memory of {_mib(int(pool))}")
    text = f"{rmw} without shared memory for {SEGMENT_IMAGES} images: they go through TCP, also on this machine"
    pool = f"ZENOH_SHM_ALLOC_SIZE={max(needed, _ZENOH_POOL)}"
    advice = f"export ZENOH_CONFIG_OVERRIDE={_ZENOH_SHARED} {pool}, here and for the cameras"
    return Finding(GROUP, "profile", Level.WARN, text, advice)


def _sockets(around: Surroundings, image_bytes: int, shared: bool) -> Finding:
    """The kernel's limits for images that come over the network."""
    buffer = around.number("proc/sys/net/core/rmem_max")
    fragments = around.number("proc/sys/net/ipv4/ipfrag_high_thresh")
    seconds = around.number("proc/sys/net/ipv4/ipfrag_time")
    if buffer is None:
        return Finding(GROUP, "sockets", Level.SKIPPED, "this system has no /proc/sys/net/core/rmem_max")
    needed = image_bytes or USUAL_IMAGE_BYTES
    rest = "" if fragments is None else f", ipfrag_high_thresh {_mib(fragments)}, ipfrag_time {seconds} s"
    text = f"net.core.rmem_max {_mib(buffer)}{rest}; an image has {_mib(needed)}"
    facts = {"rmem_max": buffer, "ipfrag_high_thresh": fragments, "ipfrag_time": seconds}
    small = buffer < needed or (fragments is not None and fragments < min(_FRAGMENT_BYTES, 2 * needed))
    if small and shared:
        text += "; too small for cameras on other machines, without effect on those here, which use shared memory"
        return Finding(GROUP, "sockets", Level.OK, text, facts=facts)
    if small:
        advice = (
            f"sudo sysctl -w net.core.rmem_max={64 * _MIB} net.ipv4.ipfrag_high_thresh={_FRAGMENT_BYTES} "
            "net.ipv4.ipfrag_time=3, and a file in /etc/sysctl.d/ to keep it"
        )
        return Finding(GROUP, "sockets", Level.WARN, text, advice, facts)
    return Finding(GROUP, "sockets", Level.OK, text, facts=facts)


def _ours() -> str:
    from seg_perception.core.errors import ConfigurationError
    from seg_perception.core.share import share_directory

    try:
        return str(share_directory() / "config" / "fastdds.xml")
    except ConfigurationError:
        return "$(ros2 pkg prefix seg_perception)/share/seg_perception/config/fastdds.xml"


def _named(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """Elements below, by name, in whatever namespace."""
    return (each for each in element.iter() if each.tag.rpartition("}")[2] == name)


def _text(element: ElementTree.Element, name: str) -> str:
    found = next(_named(element, name), None)
    return "" if found is None else (found.text or "").strip()


def _mib(size: int) -> str:
    return f"{size / _MIB:.{0 if size >= 10 * _MIB else 1}f} MiB"
