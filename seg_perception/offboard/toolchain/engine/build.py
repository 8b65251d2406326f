"""`seg_perception build` without the command line: reuse an engine, or build it and write its manifest."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from seg_perception import __version__
from seg_perception.core.class_tables import find_class_table
from seg_perception.core.contract import CONTRACT_VERSION, ModelSpec
from seg_perception.core.errors import ConfigurationError, SegPerceptionError
from seg_perception.core.files import writable_folder, write_atomically
from seg_perception.core.manifest import (
    ENGINE_SUFFIX,
    BuildSettings,
    EngineManifest,
    file_sha256,
    load_manifest,
    manifest_path,
)

from ..export import spec_of
from ..quantize.frames import CalibrationSet
from .builder import EngineBuild, Plan
from .int8 import calibration_frames, frames_sha256
from .source import Network, Source, canonical_model, in_precision
from .target import Target

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Built:
    """An engine on disk.

    Attributes:
        path: of the engine; its manifest lies next to it.
        manifest: what is known of it.
        reused: whether it was there already.
    """

    path: Path
    manifest: EngineManifest
    reused: bool


def build_engine(
    source: Path, folder: Path, settings: BuildSettings, report: Report = lambda line: None, rebuild: bool = False
) -> Built:
    """Build an engine, or find the one that was built from the same with the same settings.

    Args:
        source: a raw export or a canonical model, ONNX.
        folder: where engine and manifest go; made if it is absent.
        settings: the user's.
        report: called with a line of text for each thing done.
        rebuild: build also where an engine could be reused.

    Raises:
        BackendUnavailable: TensorRT is absent or too old, or there is no GPU to build for.
        ConfigurationError: a setting fits neither the model nor TensorRT, or `folder` cannot be written.
        ModelError: the model is damaged, not of a known family, or TensorRT cannot build it.
        KeyboardInterrupt: cancelled; nothing was written.
    """
    target = Target.choose(settings)
    writable_folder(folder)
    loaded = Source.load(source)
    frames = calibration_frames(settings)
    key = engine_key(loaded, settings, target, frames_sha256(frames))
    engine = folder / engine_name(source, settings)
    found = None if rebuild else _reusable(engine, key)
    if found is not None:
        return Built(engine, found, reused=True)

    watch = _Stopwatch()
    network = _network(loaded, settings, frames, report, watch)
    data = _engine(network, source, settings, target, report, watch)
    manifest = EngineManifest(
        spec=spec_of(network.model, str(source)),
        engine_sha256=hashlib.sha256(data).hexdigest(),
        engine_bytes=len(data),
        source=str(source),
        source_sha256=loaded.sha256,
        flavour=target.library.flavour,
        version=target.library.version,
        device=target.device,
        architectures=target.architectures,
        precision=network.summary.to_dict(),
        quantization=network.quantization,
        forced=network.forced,
        settings=settings,
        seconds=watch.laps,
        key=key,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        package_version=__version__,
    )
    # The engine first: should the second write fail, the hash in the old manifest tells that it is not this engine's.
    write_atomically(engine, data)
    write_atomically(manifest_path(engine), manifest.to_json().encode())
    return Built(engine, manifest, reused=False)


def engine_name(source: Path, settings: BuildSettings) -> str:
    """Name of the engine's file: what it was made from, in which precision, for which TensorRT."""
    stem = source.name.removesuffix(".onnx").removesuffix(".canonical").removesuffix(f"-{settings.precision}")
    return f"{stem}-{settings.precision}-{settings.target}{ENGINE_SUFFIX}"


def engine_key(source: Source, settings: BuildSettings, target: Target, frames: str) -> str:
    """SHA-256 over everything that the engine depends on; where a file lies is not part of it, what it holds is."""
    values = asdict(settings)
    for name in ("calibration", "gpu", "timing_cache"):
        del values[name]
    if settings.classes:
        values["classes"] = file_sha256(find_class_table(settings.classes, ()))
    values |= {
        "source": source.content,
        "frames": frames,
        "library": [target.library.flavour, target.library.version],
        "devices": [target.device, *target.architectures],
        "contract": CONTRACT_VERSION,
        "package": __version__,
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def check_batch(spec: ModelSpec, settings: BuildSettings, source: Path) -> None:
    """Hold `--max-batch` against the model.

    Raises:
        ConfigurationError: the model's batch is fixed, and another one.
    """
    if spec.batch and settings.max_batch not in (0, spec.batch):
        raise ConfigurationError(
            f"--max-batch {settings.max_batch}: {source} has a fixed batch of {spec.batch}; leave the option out, or "
            "export the model with a dynamic batch axis"
        )


def _network(
    source: Source, settings: BuildSettings, frames: CalibrationSet | None, report: Report, watch: _Stopwatch
) -> Network:
    """The model that TensorRT gets."""
    model = canonical_model(source, settings, report)
    check_batch(spec_of(model, str(source.path)), settings, source.path)
    watch.lap("prepare")
    network = in_precision(model, settings, source.path, frames, report)
    report(str(network.summary))
    watch.lap("precision")
    return network


def _engine(
    network: Network, source: Path, settings: BuildSettings, target: Target, report: Report, watch: _Stopwatch
) -> bytes:
    """Return what TensorRT makes of it."""
    report(f"building for {target}")
    spec = spec_of(network.model, str(source))
    build = EngineBuild(target, Plan(network.model.SerializeToString(), spec, str(source), settings), report)
    build.parse()
    watch.lap("parse")
    data = build.build()
    watch.lap("build")
    return data


def _reusable(engine: Path, key: str) -> EngineManifest | None:
    """The manifest of the engine that is there, if it was built from the same; None for any other or none."""
    try:
        manifest = load_manifest(engine)
        same = manifest.key == key and file_sha256(engine) == manifest.engine_sha256
    except (SegPerceptionError, OSError):
        return None
    return manifest if same else None


class _Stopwatch:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._begin = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Everything since the last call was `stage`."""
        now = time.perf_counter()
        self.laps[stage], self._begin = round(now - self._begin, 2), now
