"""What a result depends on in its model, found without opening the model."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from seg_perception.core.errors import ModelError
from seg_perception.core.manifest import ENGINE_SUFFIX, file_sha256
from seg_perception.core.onnx_files import external_files, model_sha256
from seg_perception.core.share import find_model
from seg_perception.onboard.pipeline.opening import ModelChoice


def model_terms(choice: ModelChoice) -> dict[str, Any]:
    """The model's file by its sha256, and how it runs; threads change nothing.

    Raises:
        ModelError: there is no such file here.
    """
    table = Path(choice.classes)
    return {
        "model": file_digest(find_model(choice.model)),
        "backend": choice.backend,
        "device": choice.device,
        "classes": file_digest(table) if table.is_file() else choice.classes,
    }


def anywhere(choice: ModelChoice) -> ModelChoice:
    """The same for processes with another working folder; what the package brings each host finds by itself."""
    model, table = Path(choice.model).expanduser(), Path(choice.classes)
    return replace(
        choice,
        model=str(model.resolve()) if model.exists() else choice.model,
        classes=str(table.resolve()) if table.is_file() else choice.classes,
    )


def runs_on_gpu(choice: ModelChoice) -> bool:
    """Return whether each worker needs a GPU of its own."""
    device = choice.device.lower()
    return find_model(choice.model).suffix == ENGINE_SUFFIX or device.startswith(("cuda", "gpu"))


def file_digest(path: Path) -> str:
    """SHA-256 of a model, with the files that hold its weights, or of a file that belongs to it.

    Raises:
        ModelError: it cannot be read.
    """
    is_onnx = path.suffix == ".onnx"
    try:
        states = [file.stat() for file in (path, *(external_files(path) if is_onnx else ()))]
        return _digest(path, tuple((state.st_mtime_ns, state.st_size) for state in states))
    except OSError as error:
        raise ModelError(f"model file: {path}: cannot be read ({error.strerror or error}); check --model") from error


@lru_cache(maxsize=16)
def _digest(path: Path, _states: tuple[tuple[int, int], ...]) -> str:
    return model_sha256(path) if path.suffix == ".onnx" else file_sha256(path)
