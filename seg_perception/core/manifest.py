"""The manifest of an engine: `NAME.engine.json` next to `NAME.engine`, without which the engine is not loaded.

An engine is opaque. Its manifest says which model it holds, what it was built from, with what, for which devices and
how accurate it is; and it is enough to give the command that builds the engine again.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from .contract import CONTRACT_VERSION, ModelSpec
from .errors import BackendUnavailable, ModelError, NotCanonicalError
from .files import read_regular
from .text import is_printable, printable

MANIFEST_VERSION = 1
# The first bytes of what TensorRT and TensorRT-RTX write.
ENGINE_MAGIC = (b"ftrt", b"ptrt", b"vtrt")
ENGINE_SUFFIX = ".engine"
SCHEMA = Path(__file__).with_name("engine_manifest.schema.json")
PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """What the user asked `seg_perception build` for.

    Attributes:
        precision: one of `PRECISIONS`.
        target: `tensorrt` or `tensorrt-rtx`.
        gpu: architectures to build for without one, such as `sm_86`; empty for the GPU that is there.
        max_batch: largest batch of a model that leaves it open; 0 for the model's own, or 1.
        calibration: images for INT8, as the user named them.
        max_loss: budget of the accuracy gate; None for its default.
        force: keep an engine that fails the gate.
        workspace: limit of scratch memory in MiB; 0 for none.
        dla: DLA core, or None.
        timing_cache: file of measured kernel times, or empty.
        sparsity: whether kernels may use weights that are 2:4 sparse.
        classes, family, input_size: how to prepare a source that is a raw export; empty for the defaults.
    """

    precision: str
    target: str
    gpu: tuple[str, ...] = ()
    max_batch: int = 0
    calibration: tuple[str, ...] = ()
    max_loss: float | None = None
    force: bool = False
    workspace: int = 0
    dla: int | None = None
    timing_cache: str = ""
    sparsity: bool = False
    classes: str = ""
    family: str = ""
    input_size: str = ""

    def command(self, source: str, folder: str) -> str:
        """The call of `seg_perception build` that asks for the same, for a shell."""
        words = ["seg_perception", "build", source, "-o", folder]
        for field in fields(self):
            value = getattr(self, field.name)
            if value == field.default:
                continue
            words.append(f"--{field.name.replace('_', '-')}")
            if value is not True:
                words += value if isinstance(value, tuple) else [str(value)]
        return shlex.join(words)


@dataclass(frozen=True, slots=True)
class EngineManifest:
    """What is known of an engine.

    Attributes:
        spec: what the model says of itself.
        engine_sha256, engine_bytes: of the engine's file.
        source, source_sha256: the ONNX file that was built, as the user named it.
        flavour, version: of TensorRT.
        device: name of the GPU it was built on; empty for one built without.
        architectures: the GPU architectures it runs on, such as `sm_86`.
        precision: multiply-accumulates per type and layers kept in a wider one.
        quantization: how the model became INT8 and what that cost; None for one that was not quantized here.
        forced: whether it was kept although it lost more accuracy than the gate allows.
        settings: what was asked for.
        seconds: how long each stage took.
        key: hash of everything that the engine depends on.
        created: when, UTC, ISO 8601.
        package_version: of this package.
    """

    spec: ModelSpec
    engine_sha256: str
    engine_bytes: int
    source: str
    source_sha256: str
    flavour: str
    version: str
    device: str
    architectures: tuple[str, ...]
    precision: Mapping[str, Any]
    quantization: Mapping[str, Any] | None
    forced: bool
    settings: BuildSettings
    seconds: Mapping[str, float]
    key: str
    created: str
    package_version: str

    def rebuild_command(self, engine: Path) -> str:
        """Return what builds `engine` again, for a shell; the source's path is that of the machine that built it."""
        return self.settings.command(self.source, str(engine.parent))

    def to_json(self) -> str:
        """Return what `from_json` reads; a file name that is no UTF-8 is written escaped."""
        values = {
            "manifest_version": MANIFEST_VERSION,
            "package_version": self.package_version,
            "created": self.created,
            "key": self.key,
            "source": {"path": self.source, "sha256": self.source_sha256},
            "engine": {
                "sha256": self.engine_sha256,
                "bytes": self.engine_bytes,
                "tensorrt": {"flavour": self.flavour, "version": self.version},
                "device": self.device,
                "architectures": self.architectures,
            },
            "precision": self.precision,
            "quantization": self.quantization,
            "forced": self.forced,
            "settings": asdict(self.settings),
            "seconds": self.seconds,
            "model": json.loads(self.spec.to_json()),
        }
        return json.dumps(_printable(values), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, origin: str) -> EngineManifest:
        """Read what `to_json` wrote.

        Args:
            text: the JSON value.
            origin: the file it came from, for the message.

        Raises:
            ModelError: not JSON, of another version, or not what the schema demands.
            NotCanonicalError: the engine's model follows another version of the contract.
            BackendUnavailable: jsonschema is not installed.
        """
        try:
            values = json.loads(text, parse_constant=_no_number)
            model = json.dumps(values.get("model")) if isinstance(values, dict) else ""
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{origin}: not JSON ({printable(error)}); copy it again, or {_REBUILD}") from error
        _validate(values, origin)
        engine, source = values["engine"], values["source"]
        lists = {name: tuple(values["settings"][name]) for name in ("gpu", "calibration")}
        settings = BuildSettings(**{**values["settings"], **lists})
        if values["model"]["contract_version"] != CONTRACT_VERSION:
            raise NotCanonicalError(
                f"{origin}: the engine's model speaks contract version {values['model']['contract_version']}, this "
                f"package speaks {CONTRACT_VERSION}; prepare the model again from its export, then build it: "
                f"{settings.command(source['path'], str(Path(origin).parent))}"
            )
        return cls(
            spec=ModelSpec.from_json(model, origin),
            engine_sha256=engine["sha256"],
            engine_bytes=engine["bytes"],
            source=source["path"],
            source_sha256=source["sha256"],
            flavour=engine["tensorrt"]["flavour"],
            version=engine["tensorrt"]["version"],
            device=engine["device"],
            architectures=tuple(engine["architectures"]),
            settings=settings,
            **{name: values[name] for name in _UNCHANGED},
        )


def manifest_path(engine: Path) -> Path:
    """Return where the manifest of an engine lies."""
    return engine.with_name(f"{engine.name}.json")


def load_manifest(engine: Path) -> EngineManifest:
    """Read the manifest of an engine.

    Raises:
        ModelError: there is none, it cannot be read, or it is not what the schema demands.
        NotCanonicalError: the engine's model follows another version of the contract.
        BackendUnavailable: jsonschema is not installed.
    """
    path = manifest_path(engine)
    try:
        data = read_regular(path, _MOST_BYTES)
        text = data.decode("utf-8")
    except FileNotFoundError as error:
        raise ModelError(
            f"{engine}: expected its manifest {path.name} next to it, found none; copy both files, or {_REBUILD}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: the manifest cannot be read ({error}); copy it again, or {_REBUILD}") from error
    if len(data) > _MOST_BYTES:
        raise ModelError(f"{path}: expected a manifest of at most {_MOST_BYTES >> 20} MiB; {_REBUILD}")
    return EngineManifest.from_json(text, str(path))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal text; the file need not fit into memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


_REBUILD = "build the engine again with `seg_perception build MODEL.onnx -o DIR`"
# 25,000 classes with long names have half of it.
_MOST_BYTES = 16 << 20
# Longer than any path.
_LONGEST_TEXT = 8192
_UNCHANGED = ("precision", "quantization", "forced", "seconds", "key", "created", "package_version")


def _validate(values: Any, origin: str) -> None:
    """Hold a manifest against the schema.

    Raises:
        ModelError: it is of another version, or breaks the schema.
        BackendUnavailable: jsonschema is not installed.
    """
    try:
        from jsonschema import Draft7Validator
        from jsonschema.validators import extend
    except ImportError as error:
        raise BackendUnavailable(
            f"reading an engine's manifest needs the Python package jsonschema ({error}); `pip install jsonschema`, or "
            "python3-jsonschema through rosdep"
        ) from error
    version = values.get("manifest_version") if isinstance(values, dict) else None
    if version is not None and version != MANIFEST_VERSION:
        raise ModelError(
            f"{origin}: expected a manifest of version {MANIFEST_VERSION}, got {printable(repr(version))}; use the "
            f"version of seg_perception that wrote it, or {_REBUILD}"
        )
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    # For JSON schema 4.0 is an integer, too; for what counts with it, it is none.
    kinds = Draft7Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    validator = extend(Draft7Validator, type_checker=kinds)(schema)  # type: ignore[no-untyped-call]
    problems = sorted(validator.iter_errors(values), key=lambda problem: list(map(str, problem.path)))
    if problems:
        place = "/".join(map(str, problems[0].path)) or "manifest"
        reason = f"{printable(place)}: {printable(problems[0].message, 300)}"
    elif text := next((text for text in _texts(values) if len(text) > _LONGEST_TEXT or not is_printable(text)), ""):
        reason = f"expected texts of at most {_LONGEST_TEXT} characters without control characters, got "
        reason += printable(text)
    else:
        return
    raise ModelError(f"{origin}: not a manifest that this version reads: {reason}; {_REBUILD}")


def _texts(values: object) -> Iterator[str]:
    """Every text in a JSON value, keys too."""
    waiting = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value


def _printable(value: Any) -> Any:
    """A JSON value with every text escaped."""
    if isinstance(value, str):
        return printable(value, _LONGEST_TEXT // 2)
    if isinstance(value, Mapping):
        return {printable(key): _printable(item) for key, item in value.items()}
    return [_printable(item) for item in value] if isinstance(value, (list, tuple)) else value


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")
