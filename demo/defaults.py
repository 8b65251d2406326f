"""The model and the pictures to use when none are named."""

from __future__ import annotations

import hashlib
from pathlib import Path

from seg_perception.errors import NotCanonicalError, SegPerceptionError

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
MODEL = SHARED / "models" / "yolov8n-seg-640.onnx"
INPUTS = (SHARED / "video" / "highway_720p.mp4", SHARED / "images" / "street")


class DefaultsMissing(SegPerceptionError):
    """There is no model or no picture to run on."""


def default_model() -> Path:
    """The test model.

    Raises:
        DefaultsMissing: it is not on this machine.
    """
    if not MODEL.is_file():
        raise DefaultsMissing(
            f"no model: the package ships none yet and {MODEL} is not there; give one: "
            "make demo MODEL=/path/to/yolov8n-seg.onnx INPUT=/path/to/video-or-pictures"
        )
    return MODEL


def default_inputs() -> list[Path]:
    """The test clip and the street photographs.

    Raises:
        DefaultsMissing: none of them is on this machine.
    """
    found = [path for path in INPUTS if path.exists()]
    if not found:
        raise DefaultsMissing(
            f"no pictures: {SHARED} is not there; give some: "
            "make demo MODEL=/path/to/yolov8n-seg.onnx INPUT=/path/to/video-or-pictures"
        )
    return found


def canonical(model: Path, folder: Path) -> Path:
    """The model itself if it is canonical, else the canonical model made from it in `folder`.

    Raises:
        ModelError: the model is missing or cannot be prepared.
    """
    from seg_perception.backend.registry import open_model
    from seg_perception.toolchain.prepare import prepare

    try:
        open_model(model).close()
    except NotCanonicalError:
        digest = hashlib.sha256(model.read_bytes()).hexdigest()[:12]
        prepared = folder / f"{model.stem}-{digest}.canonical.onnx"
        folder.mkdir(parents=True, exist_ok=True)
        prepare(model, prepared)
        return prepared
    return model
