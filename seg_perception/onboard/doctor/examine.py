"""All checks, one group after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from seg_perception.core.errors import SegPerceptionError

from . import gpu, packages
from .cameras import check_cameras
from .dds import check_dds
from .finding import Finding, Level
from .gpu import check_gpu
from .graph import RosGraph
from .machine import check_machine
from .model import ask_model, flavour_of
from .packages import check_packages, is_absent
from .ros import check_ros, distribution_of
from .settings import NodeSettings
from .surroundings import Surroundings

# Looks at topics; without any, at all that carry images. Raises `SegPerceptionError` where it cannot.
Look = Callable[[Sequence[str]], RosGraph]


def examine(settings: NodeSettings, around: Surroundings, look: Look, progress: Callable[[str], None]) -> list[Finding]:
    """Do all checks.

    Args:
        settings: of the node.
        around: the machine.
        look: looks at the running system.
        progress: told what begins, for the user who waits.
    """
    path, model_problem = _model_path(settings.model)
    flavour = flavour_of(path)
    progress("importing packages")
    answers = around.answers(packages.QUESTIONS)
    rclpy = answers["rclpy"].out.strip() if answers["rclpy"].code == 0 else ""
    distribution = distribution_of(around, rclpy)
    graph: RosGraph | None = None
    problem = "rclpy is not there"
    if rclpy:
        progress("looking at topics")
        try:
            graph, problem = look(settings.topics), ""
        except SegPerceptionError as error:
            problem = str(error)
    findings = check_packages(answers, bool(flavour), bool(distribution) or not is_absent(answers["rclpy"], "rclpy"))
    findings += check_ros(around, rclpy, graph, problem)
    # Every distribution's default, where the middleware itself could not be asked.
    rmw = graph.rmw if graph else rclpy and (around.environment.get("RMW_IMPLEMENTATION") or "rmw_fastrtps_cpp")
    findings += check_dds(around, distribution, rmw, graph.largest_image if graph else 0)
    progress("looking at the machine")
    findings += check_machine(around)
    findings += check_gpu(around.answers(gpu.QUESTIONS), flavour)
    progress("opening the model")
    if model_problem:
        findings.append(Finding("model", "model", Level.FAIL, model_problem))
    elif settings.model:
        findings += ask_model(around, path, settings.backend, settings.classes)
    else:
        findings.append(Finding("model", "model", Level.SKIPPED, "none is named", "name one with --model"))
    return findings + check_cameras(graph, problem, settings.topics, settings.use_sim_time)


def _model_path(model: str) -> tuple[Path, str]:
    """The file of the model, and why there is none."""
    from seg_perception.core.share import find_model

    try:
        return find_model(model), ""
    except SegPerceptionError as error:
        return Path(model), str(error)
