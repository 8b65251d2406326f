"""The model to use when none is named, and canonical models from exports."""

from __future__ import annotations

import hashlib
from pathlib import Path

from seg_perception.core.errors import NotCanonicalError

MODEL = Path(__file__).resolve().parents[1] / "engines" / "street-nano.onnx"


def canonical(model: Path, folder: Path) -> Path:
    """The model itself, a file or a name, if it is canonical, else the canonical model made from it in `folder`.

    Raises:
        ModelError: the model is missing or cannot be prepared.
    """
    from seg_perception.core.share import find_model
    from seg_perception.offboard.toolchain.prepare import prepare
    from seg_perception.onboard.backend.registry import open_backend

    model = find_model(str(model))
    try:
        open_backend(model).close()
    except NotCanonicalError:
        digest = hashlib.sha256(model.read_bytes()).hexdigest()[:12]
        prepared = folder / f"{model.stem}-{digest}.canonical.onnx"
        folder.mkdir(parents=True, exist_ok=True)
        prepare(model, prepared)
        return prepared
    return model
