"""The cameras: whether their images come, and whether their clock is ours."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from seg_perception.core.messages.topics import TRANSPORTS, VIDEO_TRANSPORTS
from seg_perception.core.text import printable

from .finding import Finding, Level
from .graph import ImageStream, Publisher, RosGraph

GROUP = "cameras"
IMAGE_KINDS = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
# More than these parts of the frames missing tell of a transport that does not carry them.
_LOST_PART = 0.05
# Seconds: clocks of synchronised machines differ by less; a fresh frame is not older; beyond, stamps count from
# something else than our clock does.
_FUTURE, _OLD, _EPOCH = 0.05, 1.0, 3600.0
_SUGGESTIONS = 4
# Of topics or publishers in a finding; of names that are compared, which takes time for each.
_MOST_NAMED, _MOST_COMPARED = 8, 500
_LOSS_ADVICE = (
    "large images need shared memory, or larger socket buffers between machines: see the findings on dds, also for the "
    "shell that the camera driver is started from"
)


def check_cameras(graph: RosGraph | None, problem: str, named: Sequence[str], simulated: bool) -> list[Finding]:
    """Judge what came of the image topics.

    Args:
        graph: what was seen; None if nothing could be.
        problem: why nothing could be seen.
        named: full names of the topics that must be there; the others were merely found.
        simulated: whether the node will run with use_sim_time.
    """
    if graph is None:
        level = Level.FAIL if named else Level.SKIPPED
        return [Finding(GROUP, "topics", level, f"not looked at: {problem}")]
    findings = [_clock(graph, simulated), *_left_out(graph)]
    if not graph.streams:
        advice = "start the cameras, and check ROS_DOMAIN_ID and discovery range; name topics with --camera"
        return [*findings, Finding(GROUP, "topics", Level.WARN, "no image topic is published here", advice)]
    for stream in graph.streams:
        findings.append(_images(graph, stream, stream.topic in named))
        if stream.frames and not stream.fault:
            findings.append(_stamps(stream, simulated))
    return findings


def near_names(topic: str, known: Sequence[str]) -> list[str]:
    """Names that may have been meant: those below or above it, then those spelled alike."""
    known = known[:_MOST_COMPARED]
    related = [name for name in known if name.startswith(f"{topic}/") or topic.startswith(f"{name}/")]
    ending = [name for name in known if name.endswith(topic) or topic.endswith(name)]
    alike = get_close_matches(topic, known, _SUGGESTIONS, 0.6)
    return list(dict.fromkeys([*related, *ending, *alike]))[:_SUGGESTIONS]


def _left_out(graph: RosGraph) -> list[Finding]:
    """Return what nothing is found of: topics that cannot be asked about, and more image topics than are measured."""
    findings = []
    if graph.refused:
        found = (
            f"{len(graph.refused)} topics are announced under names that ROS forbids, and nothing can be told of them: "
            f"{_listed(graph.refused)}"
        )
        advice = "find who announces them: another DDS program on this domain, or somebody who should not be there"
        findings.append(Finding(GROUP, "names", Level.WARN, found, advice))
    if graph.unmeasured:
        found = f"{len(graph.unmeasured)} more image topics were not measured: {_listed(graph.unmeasured)}"
        findings.append(Finding(GROUP, "others", Level.WARN, found, "name those that matter with --camera"))
    return findings


def _listed(names: Sequence[str]) -> str:
    more = f", and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(map(printable, names[:_MOST_NAMED])) + more


def _clock(graph: RosGraph, simulated: bool) -> Finding:
    if simulated and not graph.clocks:
        advice = "play the bag with `ros2 bag play --clock`, or set use_sim_time to false"
        found = "use_sim_time is true, but nobody publishes /clock: the node's time stands still"
        return Finding(GROUP, "/clock", Level.FAIL, found, advice)
    if graph.clocks > 1:
        found = f"{graph.clocks} publishers of /clock: time jumps between them"
        return Finding(GROUP, "/clock", Level.WARN, found, "end all but one simulator or bag player")
    if graph.clocks and not simulated:
        advice = "in a simulation or replay start the node with use_sim_time:=true; on a vehicle find who publishes it"
        return Finding(GROUP, "/clock", Level.WARN, "somebody publishes /clock, but use_sim_time is false", advice)
    return Finding(GROUP, "/clock", Level.OK, "simulated time, published" if simulated else "system time")


def _images(graph: RosGraph, stream: ImageStream, named: bool) -> Finding:
    """Return whether images come that can be used."""
    worst = Level.FAIL if named else Level.WARN
    if not stream.kind:
        return _absent(graph, stream.topic)
    video = next((name for name in VIDEO_TRANSPORTS if TRANSPORTS[name] == stream.kind not in IMAGE_KINDS), "")
    if video:
        found = f"packets of video ({stream.kind}), which are not measured"
        advice = f"the node reads them with cameras.NAME.transport: {video}"
        return Finding(GROUP, stream.topic, Level.OK, found, advice)
    if stream.kind not in IMAGE_KINDS:
        advice = f"the node takes {' or '.join(IMAGE_KINDS)}"
        return Finding(GROUP, stream.topic, Level.FAIL, f"is of type {stream.kind}", advice)
    who = _listed([f"{each.node} ({_qos(each)})" for each in stream.publishers]) or "nobody"
    if stream.unknown:
        who = "nobody knows whom: somebody announces a QoS, type or name for this topic that ROS cannot express"
    if not stream.frames:
        found = f"nothing came within {graph.seconds:g} s; published by {who}"
        there = stream.publishers or stream.unknown
        advice = f"check that the camera runs; {_LOSS_ADVICE}" if there else "start the camera"
        return Finding(GROUP, stream.topic, worst, found, advice)
    facts = {
        **{name: getattr(stream, name) for name in ("hz", "frames", "missed", "width", "height", "encoding", "size")},
        "frame_id": stream.frame_id,
        "qos": [_qos(each) for each in stream.publishers],
    }
    if stream.fault:
        return Finding(GROUP, stream.topic, worst, stream.fault, facts=facts)
    size = f"{stream.width}x{stream.height} " if stream.width else ""
    info = "" if stream.infos else ", no camera_info"
    found = f"{stream.hz:.1f} Hz, {size}{stream.encoding}, {stream.size / 1e6:.2f} MB, from {who}{info}"
    lost = stream.missed / (stream.frames + stream.missed)
    if lost > _LOST_PART:
        found += f"; {stream.missed} of {stream.frames + stream.missed} frames were lost on the way"
        return Finding(GROUP, stream.topic, Level.WARN, found, _LOSS_ADVICE, facts)
    if stream.unknown:
        advice = "find who else announces this topic; without knowing, the node cannot follow its publishers' QoS"
        return Finding(GROUP, stream.topic, Level.WARN, found, advice, facts)
    if len(stream.publishers) > 1:
        advice = "one camera, one topic: frames of several publishers are taken for one camera's"
        return Finding(GROUP, stream.topic, Level.WARN, found, advice, facts)
    return Finding(GROUP, stream.topic, Level.OK, found, facts=facts)


def _absent(graph: RosGraph, topic: str) -> Finding:
    images = [name for name, kinds in graph.topics.items() if set(kinds) & set(IMAGE_KINDS)]
    near = near_names(topic, images) or near_names(topic, list(graph.topics))
    if near:
        advice = f"did you mean {_listed(near)}? The parameter is cameras.NAME.topic"
    elif images:
        advice = f"image topics here: {_listed(sorted(images))}"
    else:
        advice = "no image topic is published here: start the camera, and check ROS_DOMAIN_ID and discovery range"
    return Finding(GROUP, topic, Level.FAIL, "nobody publishes this topic", advice)


def _stamps(stream: ImageStream, simulated: bool) -> Finding:
    """Return whether the camera's clock is the node's."""
    check = f"{stream.topic} stamps"
    least, median, most = stream.ages
    facts = {"age_min": least, "age_median": median, "age_max": most}
    if not stream.stamp:
        found = "are zero: no latency, no max_age and no synchronisation with other sensors"
        return Finding(GROUP, check, Level.WARN, found, "have the camera driver stamp its frames", facts)
    if simulated and stream.simulated_age is not None:
        median = stream.simulated_age
    elif abs(median) > _EPOCH and stream.simulated_age is not None and abs(stream.simulated_age) < _EPOCH:
        found = f"are of the time on /clock, {_span(median)} from the system's"
        return Finding(GROUP, check, Level.WARN, found, "start the node with use_sim_time:=true", facts)
    if abs(median) > _EPOCH:
        found = (
            f"are {_span(median)} {'before' if median > 0 else 'after'} now: of another epoch, such as time since boot"
        )
        advice = (
            "set the camera driver to the system's clock (use_sim_time for a replay); max_age and latencies mean "
            "nothing until then"
        )
        return Finding(GROUP, check, Level.WARN, found, advice, facts)
    if median < -_FUTURE:
        found = f"lie {_span(median)} in the future"
        advice = "synchronise the clocks of both machines (chrony or PTP), and of the camera if it has one"
        return Finding(GROUP, check, Level.WARN, found, advice, facts)
    if median > _OLD:
        found = f"frames are {_span(median)} old when they arrive"
        advice = "synchronise the clocks (chrony or PTP); if they are, the camera's driver or the network queues frames"
        return Finding(GROUP, check, Level.WARN, found, advice, facts)
    spread = "" if simulated else f" ({1e3 * least:.0f} to {1e3 * most:.0f})"
    return Finding(
        GROUP, check, Level.OK, f"frames are {1e3 * median:.0f} ms{spread} old when they arrive", facts=facts
    )


def _qos(publisher: Publisher) -> str:
    words = [publisher.reliability, publisher.durability, *([f"depth {publisher.depth}"] if publisher.depth else [])]
    return ", ".join(words).lower().replace("_", " ")


def _span(seconds: float) -> str:
    seconds = abs(seconds)
    for unit, size in (("years", 365.25 * 86400), ("days", 86400.0), ("hours", 3600.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1e3 * seconds:.0f} ms"
