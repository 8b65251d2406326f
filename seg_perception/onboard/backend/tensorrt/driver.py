"""Which NVIDIA GPU is here: asked of the driver itself.

TensorRT must not be asked: creating its Runtime without a driver prints errors and can crash the interpreter at exit.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from seg_perception.core.errors import BackendUnavailable

_LIBRARY = "libcuda.so.1"
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # of CUdevice_attribute


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU.

    Attributes:
        name: as the driver calls it.
        architecture: compute capability 8.6 as `sm_86`.
    """

    name: str
    architecture: str


def first_device() -> Device:
    """The GPU that CUDA counts first; CUDA_VISIBLE_DEVICES decides which that is.

    Raises:
        BackendUnavailable: there is no driver, it does not work, or it sees no GPU.
    """
    driver = _initialised()
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    _call(driver, "cuDeviceGet", ctypes.byref(device), 0)
    _call(driver, "cuDeviceGetName", name, len(name), device)
    _call(driver, "cuDeviceGetAttribute", ctypes.byref(major), _CAPABILITY_MAJOR, device)
    _call(driver, "cuDeviceGetAttribute", ctypes.byref(minor), _CAPABILITY_MINOR, device)
    return Device(name.value.decode(errors="replace"), f"sm_{major.value}{minor.value}")


def driver_version() -> tuple[int, int]:
    """The latest CUDA version that the driver knows, such as (12, 6).

    Raises:
        BackendUnavailable: there is no driver, or it does not work.
    """
    version = ctypes.c_int()
    _call(_initialised(), "cuDriverGetVersion", ctypes.byref(version))
    return version.value // 1000, version.value % 1000 // 10


def error_text(code: int) -> str:
    """Return what the driver says of an error code; empty for one that it does not know."""
    return _error_text(_initialised(), code)


class PrimaryContext:
    """The first GPU's primary context, which everything in a process shares: what pycuda cannot do with it."""

    def __init__(self) -> None:
        """Find the driver.

        Raises:
            BackendUnavailable: there is none, or it does not work.
        """
        self._driver = _initialised()

    def retain(self) -> int:
        """Take hold, so that nobody's release destroys it; returns the driver's error code, 0 for success."""
        return int(self._driver["cuDevicePrimaryCtxRetain"](ctypes.byref(ctypes.c_void_p()), 0))

    def leave(self) -> None:
        """Take what is current off this thread's stack of contexts."""
        self._driver["cuCtxPopCurrent_v2"](ctypes.byref(ctypes.c_void_p()))

    def release(self) -> None:
        """Let go."""
        self._driver["cuDevicePrimaryCtxRelease_v2"](0)

    def reset(self) -> None:
        """Destroy it under all who hold it: after a fault nothing else makes the GPU usable for this process."""
        self._driver["cuDevicePrimaryCtxReset_v2"](0)


def _initialised() -> ctypes.CDLL:
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise BackendUnavailable(f"no NVIDIA driver on this machine ({error})") from error
    _call(driver, "cuInit", 0)
    return driver


def _call(driver: ctypes.CDLL, function: str, *arguments: object) -> None:
    code = driver[function](*arguments)
    if code:
        reason = _error_text(driver, code) or "unknown error"
        raise BackendUnavailable(
            f"the NVIDIA driver has no GPU to use here ({function}: error {code}, {reason}; see nvidia-smi and "
            "CUDA_VISIBLE_DEVICES)"
        )


def _error_text(driver: ctypes.CDLL, code: int) -> str:
    text = ctypes.c_char_p()
    driver["cuGetErrorString"](code, ctypes.byref(text))
    return (text.value or b"").decode(errors="replace")
