"""Which ROS is here, and whether its processes can find one another."""

from __future__ import annotations

from .finding import Finding, Level
from .graph import RosGraph
from .surroundings import Surroundings

GROUP = "ros"
# rclpy's major version of each distribution.
DISTRIBUTIONS = {"humble": 3, "iron": 4, "jazzy": 7, "kilted": 9, "lyrical": 10}
TRIED = ("jazzy", "kilted")
# The package was written to fit their sources; it was not run on them.
READ = ("humble", "lyrical")
_UNKNOWN = -1
# DDS derives ports from the domain; those of higher ones collide with the ports that Linux hands out.
_HIGHEST_DOMAIN, _SAFE_DOMAIN = 232, 101
_RANGES = ("", "SUBNET", "LOCALHOST", "OFF", "SYSTEM_DEFAULT")


def distribution_of(around: Surroundings, rclpy_version: str) -> str:
    """The distribution that is sourced, else the one that rclpy's version belongs to; empty if unknown."""
    named = around.environment.get("ROS_DISTRO", "")
    return named or next((name for name, major in DISTRIBUTIONS.items() if major == _major(rclpy_version)), "")


def check_ros(around: Surroundings, rclpy_version: str, graph: RosGraph | None, problem: str) -> list[Finding]:
    """Look at distribution, middleware and discovery.

    Args:
        around: the machine.
        rclpy_version: empty if rclpy cannot be imported.
        graph: what was seen of the running system, if it could be asked.
        problem: why it could not.
    """
    if not rclpy_version:
        found = "no rclpy here"
        return [Finding(GROUP, check, Level.SKIPPED, found) for check in ("distribution", "middleware", "discovery")]
    return [_distribution(around, rclpy_version), _middleware(around, graph, problem), _discovery(around)]


def _distribution(around: Surroundings, rclpy_version: str) -> Finding:
    named, name = around.environment.get("ROS_DISTRO", ""), distribution_of(around, rclpy_version)
    text = f"{name or 'unknown'} (rclpy {rclpy_version}{'' if named else ', ROS_DISTRO is not set'})"
    expected = DISTRIBUTIONS.get(named)
    if expected is not None and _major(rclpy_version) not in (expected, _UNKNOWN):
        advice = "two installations are mixed: start from a clean shell and source one setup.bash"
        return Finding(GROUP, "distribution", Level.WARN, f"{text}, but {named} comes with rclpy {expected}.x", advice)
    if name not in TRIED:
        text += f"; this package was run on {' and '.join(TRIED)}"
        level = Level.OK if name in READ else Level.WARN
        return Finding(GROUP, "distribution", level, text)
    return Finding(GROUP, "distribution", Level.OK, text)


def _middleware(around: Surroundings, graph: RosGraph | None, problem: str) -> Finding:
    named = around.environment.get("RMW_IMPLEMENTATION", "")
    if graph is None:
        advice = (
            "source the distribution's setup.bash; install ros-DISTRO-rmw-fastrtps-cpp, or unset RMW_IMPLEMENTATION"
        )
        wanted = f"RMW_IMPLEMENTATION={named}: " if named else ""
        return Finding(GROUP, "middleware", Level.FAIL, f"{wanted}no ROS context can be made: {problem}", advice)
    return Finding(GROUP, "middleware", Level.OK, f"{graph.rmw}{'' if named else ' (the default)'}")


def _discovery(around: Surroundings) -> Finding:
    domain = around.environment.get("ROS_DOMAIN_ID", "") or "0"
    reach = around.environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "")
    local = around.environment.get("ROS_LOCALHOST_ONLY", "") == "1"
    text = f"ROS_DOMAIN_ID {domain}, range {'LOCALHOST (ROS_LOCALHOST_ONLY)' if local else reach or 'SUBNET (default)'}"
    same = "cameras, node and viewers need the same values"
    if not domain.isdecimal() or int(domain) > _HIGHEST_DOMAIN:
        advice = f"export ROS_DOMAIN_ID=N with N from 0 to {_SAFE_DOMAIN}"
        return Finding(GROUP, "discovery", Level.FAIL, f"{text}: no such domain", advice)
    if reach == "OFF":
        advice = "export ROS_AUTOMATIC_DISCOVERY_RANGE=SUBNET (or LOCALHOST)"
        return Finding(GROUP, "discovery", Level.FAIL, f"{text}: no process finds another", advice)
    if reach not in _RANGES:
        return Finding(GROUP, "discovery", Level.WARN, f"{text}: not a range", f"one of {', '.join(_RANGES[1:])}")
    if int(domain) > _SAFE_DOMAIN:
        advice = f"ports of domains over {_SAFE_DOMAIN} can collide with those that Linux hands out; choose a lower one"
        return Finding(GROUP, "discovery", Level.WARN, text, advice)
    return Finding(GROUP, "discovery", Level.OK, f"{text}; {same}")


def _major(version: str) -> int:
    major = version.partition(".")[0]
    return int(major) if major.isdecimal() else _UNKNOWN
