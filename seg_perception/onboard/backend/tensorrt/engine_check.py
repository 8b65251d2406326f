"""Whether an engine may be loaded here, and the reason if not.

Every check comes before TensorRT sees the engine: a mismatch ends in its C++ code with a message that helps nobody.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from seg_perception.core.errors import BackendUnavailable, ModelError
from seg_perception.core.files import read_regular
from seg_perception.core.manifest import EngineManifest, load_manifest, manifest_path

from .api import RUN_NAMES, TensorRt
from .driver import first_device


def check_engine(path: Path) -> tuple[EngineManifest, bytes]:
    """Hold an engine against its manifest, the TensorRT that is installed, and the GPU.

    Returns:
        The manifest of an engine that can be loaded here, and the engine's bytes: those that were checked are to be
        loaded, as the file may be another one a moment later.

    Raises:
        ModelError: it has no usable manifest, is not the file that the manifest describes, or was built with another
            version of TensorRT or for another GPU.
        NotCanonicalError: its model follows another version of the contract.
        BackendUnavailable: TensorRT, the driver or the GPU is absent.
    """
    manifest = load_manifest(path)
    rebuild = f"build it again: {manifest.rebuild_command(path)}"
    try:
        data = read_regular(path, manifest.engine_bytes)
    except OSError as error:
        raise ModelError(f"{path}: the engine cannot be read ({error.strerror}); {rebuild}") from error
    if hashlib.sha256(data).hexdigest() != manifest.engine_sha256:
        raise ModelError(
            f"{path}: not the engine that {manifest_path(path).name} describes (its SHA-256 differs: changed, "
            f"truncated, or the manifest of another build); copy both files again, or {rebuild}"
        )
    library = TensorRt.load(manifest.flavour, RUN_NAMES)
    if library.version != manifest.version:
        raise ModelError(
            f"{path}: built with {manifest.flavour} {manifest.version}, this machine has {library.version}, and an "
            f"engine runs only on the version that built it; {rebuild}"
        )
    try:
        device = first_device()
    except BackendUnavailable as error:
        raise BackendUnavailable(
            f"{path}: this engine needs an NVIDIA GPU ({', '.join(manifest.architectures)}): {error}; install "
            "its driver (or give the container access to it), or use the canonical model (.onnx), which needs no GPU"
        ) from error
    if device.architecture not in manifest.architectures:
        raise ModelError(
            f"{path}: built for {', '.join(manifest.architectures)}, the GPU here ({device.name}) is "
            f"{device.architecture}; build it again for this one: {_for_this_gpu(manifest, path, device.architecture)}"
        )
    return manifest, data


def _for_this_gpu(manifest: EngineManifest, engine: Path, architecture: str) -> str:
    gpu = (architecture,) if manifest.settings.gpu else ()
    return replace(manifest.settings, gpu=gpu).command(manifest.source, str(engine.parent))
