"""Which NVIDIA GPU is here: asked of the driver itself.

TensorRT must not be asked: creating its Runtime without a driver prints errors and can crash the interpreter at exit.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from ..errors import BackendUnavailable

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
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise BackendUnavailable(f"no NVIDIA driver on this machine ({error})") from error
    _call(driver, "cuInit", 0)
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    _call(driver, "cuDeviceGet", ctypes.byref(device), 0)
    _call(driver, "cuDeviceGetName", name, len(name), device)
    _call(driver, "cuDeviceGetAttribute", ctypes.byref(major), _CAPABILITY_MAJOR, device)
    _call(driver, "cuDeviceGetAttribute", ctypes.byref(minor), _CAPABILITY_MINOR, device)
    return Device(name.value.decode(errors="replace"), f"sm_{major.value}{minor.value}")


def _call(driver: ctypes.CDLL, function: str, *arguments: object) -> None:
    code = driver[function](*arguments)
    if code:
        text = ctypes.c_char_p()
        driver["cuGetErrorString"](code, ctypes.byref(text))
        reason = (text.value or b"unknown error").decode(errors="replace")
        raise BackendUnavailable(
            f"the NVIDIA driver has no GPU to use here ({function}: error {code}, {reason}; see nvidia-smi and "
            "CUDA_VISIBLE_DEVICES)"
        )
