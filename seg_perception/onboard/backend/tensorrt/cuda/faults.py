"""The errors of CUDA in words."""

from __future__ import annotations

from dataclasses import dataclass, field

from seg_perception.core.errors import DeviceError

from .. import driver as cuda_driver

# After these nothing works in the context any more: the device is unavailable, memory errors that cannot be corrected
# (ECC, NVLink), illegal addresses and instructions, time-outs, assertions, a destroyed context, unknown.
_FATAL = (46, 214, 220, 226, 227, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 999)
_OUT_OF_MEMORY = 2


@dataclass
class Faults:
    """Makes a `DeviceError` of what CUDA says, and knows when the context is lost.

    Attributes:
        device: name of the GPU.
        lost: whether a fault made the context useless.
    """

    device: str
    lost: bool = False
    _codes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # pycuda's exceptions have no code, only the driver's text for it.
        self._codes = {cuda_driver.error_text(code): code for code in (_OUT_OF_MEMORY, *_FATAL)}
        self._codes.pop("", None)

    def of_text(self, text: str) -> DeviceError:
        """For the message of an exception of pycuda: `FUNCTION failed: REASON`, or `... - LOG` from the linker."""
        function, _, said = text.partition(" failed: ")
        reason, _, log = said.partition(" - ")
        return self._error(f"{function}: {reason}" + (f" ({log})" if log else ""), self._codes.get(reason, 0))

    def of_code(self, function: str, code: int) -> DeviceError:
        """For the result of a function of the driver."""
        return self._error(f"{function}: {cuda_driver.error_text(code)} (error {code})", code)

    def out_of_memory(self, what: str, free: int = 0, total: int = 0) -> DeviceError:
        """There was no room for something; `total` is 0 where nobody could tell what there is."""
        there = f"{what}, and {mebibytes(free)} of {mebibytes(total)} are free" if total else what
        return DeviceError(
            f"out of memory on {self.device} ({there}); use a smaller max_batch, a smaller model or smaller camera "
            "images, or end other programs on this GPU (nvidia-smi lists them)"
        )

    def _error(self, what: str, code: int) -> DeviceError:
        if code == _OUT_OF_MEMORY:
            return self.out_of_memory(what)
        if code not in _FATAL:
            return DeviceError(
                f"{self.device} failed: {what}; nvidia-smi shows the state of the GPU and its driver; if that is in "
                "order, please report this"
            )
        self.lost = True
        return DeviceError(
            f"{self.device} failed: {what}; everything that was open on this GPU is lost: configure the node again, or "
            "start the program again; if it comes back, the kernel's log names the cause (`dmesg | grep -i xid`), and "
            "a GPU that nvidia-smi no longer lists needs a restart of the machine"
        )


def mebibytes(size: int) -> str:
    """A size in bytes as `12.5 MiB`."""
    return f"{size / (1 << 20):.1f} MiB"
