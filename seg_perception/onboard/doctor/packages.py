"""The Python packages: each is imported, in a process of its own, because a version number proves nothing."""

from __future__ import annotations

from collections.abc import Mapping

from .finding import Finding, Level
from .surroundings import Ran

GROUP = "python"
_VERSION = "import {0}; print({0}.__version__)"
# Of those that do not tell it themselves.
_METADATA = """
import {0}
from importlib.metadata import PackageNotFoundError, version
try:
    print(version("{0}"))
except PackageNotFoundError:
    print("of unknown version")
"""
# What each package is asked. The messages go through their C code, which a NumPy of another major version breaks.
QUESTIONS = {
    "numpy": _VERSION.format("numpy"),
    "opencv": _VERSION.format("cv2"),
    "PyYAML": _VERSION.format("yaml"),
    "jsonschema": _METADATA.format("jsonschema"),
    "tqdm": _VERSION.format("tqdm"),
    "openvino": _VERSION.format("openvino"),
    "onnxruntime": _VERSION.format("onnxruntime"),
    "onnx": _VERSION.format("onnx"),
    "rclpy": _METADATA.format("rclpy"),
    "messages": """
from rclpy.serialization import deserialize_message, serialize_message
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import CameraInfo, Image
from vision_msgs.msg import Detection2DArray, LabelInfo
for kind in (CameraInfo, Image, Detection2DArray, LabelInfo, DiagnosticArray):
    deserialize_message(serialize_message(kind()), kind)
print("serialized and read")
""",
    "cv_bridge": """
from cv_bridge import CvBridge
from sensor_msgs.msg import Image
image = CvBridge().imgmsg_to_cv2(Image(height=2, width=2, step=6, encoding="rgb8", data=bytes(12)), "bgr8")
print("converts" if image.shape == (2, 2, 3) else "converts wrongly")
""",
}
_NEEDED = {"numpy": "numpy", "opencv": "opencv-python", "PyYAML": "PyYAML", "jsonschema": "jsonschema", "tqdm": "tqdm"}
# What NumPy 2 prints, and what its absence of old names raises, when an extension was compiled against NumPy 1.
_NUMPY_MARKS = ("compiled using NumPy 1", "_ARRAY_API", "numpy.core.multiarray", "numpy.dtype size changed")
_NUMPY_ADVICE = (
    "the ROS distribution's packages were built for NumPy 1 and pip installed NumPy 2 over it: "
    "pip install 'numpy<2' (pip uninstall numpy if the distribution has its own), or use a virtual environment"
)


def check_packages(answers: Mapping[str, Ran], engine: bool, ros: bool) -> list[Finding]:
    """Judge what the imports of the packages gave.

    Args:
        answers: by the names of `QUESTIONS`.
        engine: whether the model is an engine, which needs none of the CPU's backends.
        ros: whether a ROS installation was found, so that its packages must work.
    """
    findings = [_needed(name, package, answers[name]) for name, package in _NEEDED.items()]
    findings += [_cpu_backend(answers, engine), _toolchain(answers["onnx"])]
    return [*findings, _rclpy(answers["rclpy"], ros), _messages(answers, ros), _cv_bridge(answers)]


def is_absent(answer: Ran, name: str) -> bool:
    """Return whether a package is not installed at all, in contrast to one that does not work."""
    return f"No module named '{name}'" in answer.err


def numpy_mismatch(answer: Ran) -> bool:
    """Return whether a package was built for another NumPy than the one that is installed."""
    return any(mark in answer.err for mark in _NUMPY_MARKS)


def _needed(name: str, package: str, answer: Ran) -> Finding:
    if answer.code == 0:
        return Finding(GROUP, name, Level.OK, answer.out.strip())
    advice = f"pip install {package}, or with a ROS distribution: rosdep install --from-paths src --ignore-src"
    return Finding(GROUP, name, Level.FAIL, f"cannot be imported: {answer.reason}", advice)


def _cpu_backend(answers: Mapping[str, Ran], engine: bool) -> Finding:
    names = ("openvino", "onnxruntime")
    there = [f"{name} {answers[name].out.strip()}" for name in names if answers[name].code == 0]
    if there:
        return Finding(GROUP, "CPU backend", Level.OK, ", ".join(there))
    reasons = "; ".join(f"{name}: {answers[name].reason}" for name in names)
    if engine:
        return Finding(GROUP, "CPU backend", Level.SKIPPED, "none is installed; an engine needs none")
    return Finding(GROUP, "CPU backend", Level.FAIL, reasons, "pip install openvino (or onnxruntime)")


def _toolchain(answer: Ran) -> Finding:
    if answer.code == 0:
        return Finding(GROUP, "onnx", Level.OK, answer.out.strip())
    return Finding(GROUP, "onnx", Level.SKIPPED, "absent; only prepare, quantize and build need it")


def _rclpy(answer: Ran, ros: bool) -> Finding:
    if answer.code == 0:
        return Finding(GROUP, "rclpy", Level.OK, answer.out.strip())
    if not ros:
        text = "no ROS here: neither ROS_DISTRO nor rclpy; the node needs it, the other commands do not"
        return Finding(GROUP, "rclpy", Level.SKIPPED, text, "source /opt/ros/DISTRO/setup.bash")
    if "rmw" in answer.reason.lower():
        advice = "install the middleware that RMW_IMPLEMENTATION names (ros-DISTRO-rmw-...), or unset the variable"
        return Finding(GROUP, "rclpy", Level.FAIL, f"cannot be imported: {answer.reason}", advice)
    advice = (
        "source /opt/ros/DISTRO/setup.bash and the workspace; in a virtual environment made with "
        "--system-site-packages and the distribution's own Python version"
    )
    return Finding(GROUP, "rclpy", Level.FAIL, f"cannot be imported: {answer.reason}", advice)


def _messages(answers: Mapping[str, Ran], ros: bool) -> Finding:
    answer = answers["messages"]
    if answer.code == 0:
        return Finding(GROUP, "messages", Level.OK, answer.out.strip())
    if not ros and answers["rclpy"].code != 0:
        return Finding(GROUP, "messages", Level.SKIPPED, "no ROS here")
    advice = "apt install ros-DISTRO-vision-msgs ros-DISTRO-sensor-msgs ros-DISTRO-diagnostic-msgs"
    return Finding(
        GROUP,
        "messages",
        Level.FAIL,
        f"sensor_msgs, vision_msgs, diagnostic_msgs: {answer.reason}",
        _NUMPY_ADVICE if numpy_mismatch(answer) else advice,
    )


def _cv_bridge(answers: Mapping[str, Ran]) -> Finding:
    answer = answers["cv_bridge"]
    if answer.code == 0 and "converts wrongly" not in answer.out and not numpy_mismatch(answer):
        return Finding(GROUP, "cv_bridge", Level.OK, answer.out.strip())
    if is_absent(answer, "cv_bridge"):
        text = "absent; only images in unusual encodings need it"
        return Finding(GROUP, "cv_bridge", Level.SKIPPED, text)
    if answers["rclpy"].code != 0:
        return Finding(GROUP, "cv_bridge", Level.SKIPPED, "no ROS here")
    reason = answer.out.strip() if answer.code == 0 and answer.out.strip() else answer.reason
    # The node reads all usual encodings itself, so this does not keep it from driving.
    if numpy_mismatch(answer):
        found = f"built for another NumPy than the {answers['numpy'].out.strip()} here: {reason}"
        return Finding(GROUP, "cv_bridge", Level.WARN, found, _NUMPY_ADVICE)
    advice = "only images in unusual encodings need it; let the camera publish bgr8, or repair ros-DISTRO-cv-bridge"
    return Finding(GROUP, "cv_bridge", Level.WARN, f"does not work: {reason}", advice)
