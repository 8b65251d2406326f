"""The errors of the package.

Every message says what was expected, what came, and what to do about it.
"""

from __future__ import annotations


class SegPerceptionError(Exception):
    """Root of every error this package raises on purpose."""


class ConfigurationError(SegPerceptionError):
    """A parameter, an option or a configuration file is not usable."""


class ClassTableError(ConfigurationError):
    """A class table is malformed or does not fit the model."""


class SourceError(SegPerceptionError):
    """A file, folder, video or bag cannot be read as a source of frames."""


class IncompleteBagError(SourceError):
    """A bag gave fewer messages than it holds or counts; what was read of it counts, and a command ends with 1."""


class FrameError(SegPerceptionError):
    """An image cannot be used; the stream it came from goes on.

    Attributes:
        kind: short stable name of the fault (`encoding`, `layout`, `size`, `compressed`, `message`, `memory`),
            used to throttle logs and to count drops by cause.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class BackendUnavailable(SegPerceptionError):
    """A library or a device that the chosen backend needs is absent; says what to install or use."""


class DeviceError(SegPerceptionError):
    """A GPU failed while it worked: out of memory, an illegal address, a lost device. What was open there is gone."""


class ModelError(SegPerceptionError):
    """A model file cannot be used: missing, truncated, of the wrong format."""


class NotCanonicalError(ModelError):
    """The file is a model, but not a canonical one; `seg_perception prepare` makes it one."""


class UnknownFamilyError(ModelError):
    """No family of the toolchain recognises the model (or more than one does)."""


class ModelOutputError(SegPerceptionError):
    """The model produced NaN or infinity for a frame; nothing of that frame is published."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory could not be allocated; OpenCV has no class of its own for that."""
    text = str(error)
    return isinstance(error, MemoryError) or "Insufficient memory" in text or "bad_alloc" in text


def interrupted(error: BaseException) -> bool:
    """Return whether an error comes of Ctrl-C, which surfaces as an ImportError while a C extension is imported."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if isinstance(each, KeyboardInterrupt):
            return True
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            waiting += (each.__cause__, each.__context__)
    return False
