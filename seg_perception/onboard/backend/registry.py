"""Which backend opens which file: the one table."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple, cast

from seg_perception.core.errors import BackendUnavailable, ConfigurationError, ModelError, interrupted
from seg_perception.core.share import find_model

from .base import Backend, RunOptions


class _Entry(NamedTuple):
    name: str
    module: str


# The first entry of a suffix is its default; a module has `open_model(path, options)`.
BACKENDS: dict[str, tuple[_Entry, ...]] = {
    ".onnx": (
        _Entry("openvino", "seg_perception.onboard.backend.host.openvino"),
        _Entry("onnxruntime", "seg_perception.onboard.backend.host.onnxruntime"),
    ),
    ".engine": (_Entry("tensorrt", "seg_perception.onboard.backend.tensorrt.backend"),),
}


def backend_names(suffix: str = ".onnx") -> tuple[str, ...]:
    """Names of the backends that open files of a suffix, the default first."""
    return tuple(entry.name for entry in BACKENDS[suffix])


def open_backend(path: Path, backend: str = "", options: RunOptions | None = None) -> Backend:
    """Open a canonical model or an engine with the backend that its suffix (or `backend`) names.

    Args:
        path: of its file, or what else `find_model` takes.
        backend: its name; empty for the one that goes with the file's suffix.
        options: how it runs.

    Raises:
        ModelError: the file is missing or no backend knows the suffix.
        NotCanonicalError: it is a raw export.
        ConfigurationError: `backend` does not exist for this suffix.
        BackendUnavailable: the backend's library is not installed and no other opens the file.
    """
    path = find_model(str(path))
    if path.is_dir():
        raise ModelError(f"model file: {path}: is a folder; expected a file ending in {', '.join(BACKENDS)}")
    if not path.is_file():
        raise ModelError(f"model file: {path} does not exist or is not a file; check parameter `model` or --model")
    entries = BACKENDS.get(path.suffix)
    if entries is None:
        raise ModelError(f"model file: expected a name ending in {', '.join(BACKENDS)}, got {path.name}")
    if backend:
        chosen = [entry for entry in entries if entry.name == backend]
        if not chosen:
            raise ConfigurationError(
                f"backend for {path.suffix}: expected one of {', '.join(entry.name for entry in entries)}, "
                f"got {backend!r}"
            )
        return _opener(chosen[0])(path, options or RunOptions())
    missing = []
    for entry in entries:
        try:
            return _opener(entry)(path, options or RunOptions())
        except BackendUnavailable as error:
            if interrupted(error):
                raise
            missing.append(str(error))
    raise BackendUnavailable("; or ".join(missing))


def _opener(entry: _Entry) -> Callable[[Path, RunOptions], Backend]:
    return cast("Callable[[Path, RunOptions], Backend]", import_module(entry.module).open_model)
