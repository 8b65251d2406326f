"""What `inspect` prints of an engine: its manifest, and whether it can be loaded here."""

from __future__ import annotations

from pathlib import Path

from seg_perception.core.errors import SegPerceptionError
from seg_perception.core.manifest import ENGINE_MAGIC, ENGINE_SUFFIX, EngineManifest, load_manifest, manifest_path
from seg_perception.offboard.toolchain.precision.listing import listed, uncounted

Rows = list[tuple[str, str]]


def engine_of(path: Path) -> Path | None:
    """The engine that a path means, by itself or by its manifest; None for any other file."""
    if not path.is_file():
        return None
    if path.name.endswith(f"{ENGINE_SUFFIX}.json"):
        return path.with_suffix("")
    if path.suffix == ENGINE_SUFFIX or manifest_path(path).is_file():
        return path
    with path.open("rb") as file:
        return path if file.read(4) in ENGINE_MAGIC else None


def describe_engine(path: Path) -> tuple[EngineManifest, Rows]:
    """The manifest of an engine, and what is not about its model as names and values.

    Raises:
        ModelError, NotCanonicalError, BackendUnavailable: see `load_manifest`.
    """
    manifest = load_manifest(path)
    built = f"{manifest.created} by seg_perception {manifest.package_version}"
    rows = [
        ("engine", f"{manifest.engine_bytes / 1e6:.1f} MB, sha256 {manifest.engine_sha256}"),
        ("TensorRT", f"{manifest.flavour} {manifest.version}"),
        ("runs on", ", ".join(manifest.architectures)),
        ("built", f"{built}, on {manifest.device}" if manifest.device else f"{built}, ahead of time"),
        ("took", ", ".join(f"{stage} {seconds:g} s" for stage, seconds in manifest.seconds.items())),
        ("from", f"{manifest.source}, sha256 {manifest.source_sha256}"),
        *_precision(manifest),
        *_quantization(manifest),
        ("command", manifest.rebuild_command(path)),
        ("here", _verdict(path)),
    ]
    return manifest, rows


def _precision(manifest: EngineManifest) -> Rows:
    shares = [f"{element} {share:.1%}" for element, share in manifest.precision["share"].items()]
    rows = [("precision", f"{manifest.settings.precision}; multiply-accumulates: {', '.join(shares) or 'none'}")]
    kept = [f"{layer['name']} ({layer['element']})" for layer in manifest.precision["kept"]]
    if kept:
        rows.append(("wider", f"{len(kept)} layers: {listed(kept)}"))
    if manifest.precision["unknown"]:
        rows.append(("uncounted", uncounted(manifest.precision["unknown"])))
    return rows


def _quantization(manifest: EngineManifest) -> Rows:
    from seg_perception.offboard.toolchain.quantize.report import Precision

    values = manifest.quantization
    if values is None:
        return []
    frames = f"{values['calibration_frames']} frames"
    rows = [("calibrated", f"on {frames}, method {values['method']}, all frames sha256 {values['calibration_sha256']}")]
    for step in values["steps"]:
        fits = "within the budget" if step["fits"] else "over the budget"
        cost = f"{step['int8_share']:.1%} INT8, {fits}; {Precision.from_dict(step['precision'])}"
        rows.append(("accuracy", f"{step['action']}: {cost}"))
    if manifest.forced:
        rows.append(("FORCED", "this engine loses more than the budget, and was kept with --force"))
    return rows


def _verdict(path: Path) -> str:
    from seg_perception.onboard.backend.registry import open_backend

    try:
        open_backend(path).close()
    except SegPerceptionError as error:
        return f"not loaded: {error}"
    return "can be loaded"
