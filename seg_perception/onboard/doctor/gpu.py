"""What an engine needs: driver, TensorRT, pycuda, and a compiler that fits the driver."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from seg_perception.core.errors import BackendUnavailable

from .finding import Finding, Level
from .packages import is_absent
from .surroundings import Ran

GROUP = "gpu"
Version = tuple[int, int]
QUESTIONS = {
    "tensorrt": "import tensorrt; print(tensorrt.__version__)",
    "tensorrt-rtx": "import tensorrt_rtx; print(tensorrt_rtx.__version__)",
    "pycuda": "import pycuda.driver; print(pycuda.VERSION_TEXT)",
    "NVRTC": """
from cuda.bindings import nvrtc
error, major, minor = nvrtc.nvrtcVersion()
assert not int(error), error
print(f"{major}.{minor}")
""",
    "nvcc": """
from shutil import which
from subprocess import run
path = which("nvcc") or which("nvcc", path="/usr/local/cuda/bin")
assert path, "nvcc is neither on PATH nor in /usr/local/cuda/bin"
print(run([path, "--version"], capture_output=True, text=True).stdout.partition("release ")[2].partition(",")[0])
""",
}
_ONLY_ENGINES = "only engines need it"


class Gpu(NamedTuple):
    """The first GPU as the driver tells of it.

    Attributes:
        name: with its architecture.
        cuda: the latest CUDA that the driver knows.
    """

    name: str
    cuda: Version


def find_gpu() -> Gpu:
    """Ask the driver.

    Raises:
        BackendUnavailable: there is no driver, or no GPU that it can use.
    """
    from seg_perception.onboard.backend.tensorrt.driver import driver_version, first_device

    device = first_device()
    return Gpu(f"{device.name} ({device.architecture})", driver_version())


def check_gpu(answers: Mapping[str, Ran], flavour: str, find: Callable[[], Gpu] = find_gpu) -> list[Finding]:
    """Judge what an engine needs.

    Args:
        answers: by the names of `QUESTIONS`.
        flavour: the TensorRT that the model at hand needs, `tensorrt` or `tensorrt-rtx`; empty if it is no engine, and
            then nothing can fail.
        find: asks the driver.
    """
    worst = Level.FAIL if flavour else Level.SKIPPED
    try:
        gpu: Gpu | None = find()
    except BackendUnavailable as error:
        gpu, advice = None, "install NVIDIA's driver, give the container access (--gpus all), or use a .onnx model"
        driver = Finding(GROUP, "driver", worst, _unneeded(str(error), flavour), advice if flavour else "")
    if gpu is not None:
        driver = Finding(GROUP, "driver", Level.OK, f"{gpu.name}, for CUDA up to {gpu.cuda[0]}.{gpu.cuda[1]}")
    # With a GPU and no engine, what is missing for engines is worth knowing, but nothing is wrong.
    return [
        driver,
        *_tensorrt(answers, flavour),
        _pycuda(answers["pycuda"], flavour, gpu),
        _compiler(answers, flavour, gpu),
    ]


def _tensorrt(answers: Mapping[str, Ran], flavour: str) -> list[Finding]:
    findings = []
    advices = {
        "tensorrt": "on a Jetson: apt install python3-libnvinfer; elsewhere from NVIDIA's packages; a virtual "
        "environment sees it only if made with --system-site-packages",
        "tensorrt-rtx": "pip install tensorrt-rtx-cu12",
    }
    for name, advice in advices.items():
        answer = answers[name]
        if answer.code == 0:
            findings.append(Finding(GROUP, name, Level.OK, answer.out.strip()))
        elif name == flavour:
            findings.append(Finding(GROUP, name, Level.FAIL, f"cannot be imported: {answer.reason}", advice))
        else:
            why = _ONLY_ENGINES if not flavour else f"this engine needs {flavour}"
            findings.append(Finding(GROUP, name, Level.SKIPPED, f"absent; {why}"))
    return findings


def _pycuda(answer: Ran, flavour: str, gpu: Gpu | None) -> Finding:
    if answer.code == 0:
        return Finding(GROUP, "pycuda", Level.OK, answer.out.strip())
    # With its package and without a driver it does not load either, which is the driver's fault.
    if not flavour or (gpu is None and not is_absent(answer, "pycuda")):
        return Finding(GROUP, "pycuda", Level.SKIPPED, _unneeded(f"does not load here: {answer.reason}", flavour))
    advice = "pip install pycuda (it is compiled: it needs the CUDA headers and a C++ compiler)"
    return Finding(GROUP, "pycuda", Level.FAIL, f"cannot be imported: {answer.reason}", advice)


def _compiler(answers: Mapping[str, Ran], flavour: str, gpu: Gpu | None) -> Finding:
    """The compiler of the kernels; its code must not be of a later CUDA than the driver."""
    check, worst = "kernel compiler", Level.FAIL if flavour else Level.WARN
    there = {name: answers[name].out.strip() for name in ("NVRTC", "nvcc") if answers[name].code == 0}
    text = ", ".join(f"{name} {version}" for name, version in there.items())
    if gpu is None:
        return Finding(GROUP, check, Level.SKIPPED, f"{text or 'none'}; there is no driver to hold it against")
    bindings = "cuda-bindings nvidia-cuda-nvrtc"
    if gpu.cuda[0] <= 12:
        bindings = "'cuda-bindings<13' nvidia-cuda-nvrtc-cu12"
    advice = f"pip install {bindings}, or put the nvcc of the driver's CUDA on PATH"
    driver = f"the driver is for CUDA {gpu.cuda[0]}.{gpu.cuda[1]}"
    if not there:
        found = f"none, so engines cannot run; NVRTC: {answers['NVRTC'].reason}; nvcc: {answers['nvcc'].reason}"
        return Finding(GROUP, check, worst, found, advice)
    fitting = [name for name, version in there.items() if _major(version) <= gpu.cuda[0]]
    if not fitting:
        found = f"{text}: of a later CUDA than the driver, which may refuse its code; {driver}"
        return Finding(GROUP, check, worst, found, advice)
    return Finding(GROUP, check, Level.OK, f"{text}; {driver}; {fitting[0]} compiles the kernels")


def _major(version: str) -> int:
    """Of a version; beyond all drivers for one that cannot be read."""
    major = version.partition(".")[0]
    return int(major) if major.isdecimal() else 1000


def _unneeded(reason: str, flavour: str) -> str:
    return reason if flavour else f"{reason}; {_ONLY_ENGINES}"
