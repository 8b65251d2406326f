"""The files that an ONNX model consists of: itself, and those in its folder that hold its weights.

A model of a stranger may name any path as the place of its weights, and runtimes differ in what they open. So the names
are read here, before a runtime or a tool sees the model, without the package `onnx`, which a vehicle does not have.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .errors import ConfigurationError, ModelError
from .files import inside
from .manifest import ENGINE_MAGIC, file_sha256
from .text import printable

# Protocol Buffers' numbers of the fields that lead to tensors, by the kind of message they are in.
_LEADS: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_EXTERNAL_DATA, _DATA_LOCATION, _EXTERNAL = 13, 14, 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def external_files(path: Path) -> tuple[Path, ...]:
    """Return the files that hold weights of an ONNX model, each once, sorted; nothing for a model in one file.

    Raises:
        ModelError: the model cannot be read, or names a file that is not in its folder, is no regular file, is missing
            or ends too early.
    """
    try:
        with path.open("rb") as file:
            _refuse_other_formats(path, file.read(64))
            # Mapped: the weights in the file itself are not read.
            places = list(_places(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise ModelError(damaged(path, str(error))) from error
    return tuple(sorted({_checked(path, place) for place in places}))


def damaged(path: Path, reason: str) -> str:
    """Return the message for a file that is no ONNX model."""
    return (
        f"{path}: not an ONNX model, or a truncated or damaged one ({reason}); expected what an exporter writes as "
        "*.onnx (a *.pt checkpoint must be exported first); copy or export it again"
    )


def model_sha256(path: Path, weights: Sequence[Path] | None = None) -> str:
    """Return the SHA-256 of an ONNX model: of its file, and of the files that hold its weights where there are any.

    Args:
        path: of the model.
        weights: what `external_files` returned, where it was asked before.

    Raises:
        ModelError: see `external_files`.
    """
    weights = external_files(path) if weights is None else weights
    try:
        if not weights:
            return file_sha256(path)
        parts = [file_sha256(path), *(f"{file.name} {file_sha256(file)}" for file in weights)]
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()


def _checked(path: Path, place: Mapping[str, str]) -> Path:
    """The file that a tensor's place names.

    Raises:
        ModelError: see `external_files`.
    """
    name = place.get("location")
    try:
        file = inside(path.parent, name, what="weights of the model")
    except ConfigurationError as error:
        raise ModelError(
            f"{path}: {error}; a model's weights have to lie in its own folder: copy them there and export the model "
            "again, or save it as one file"
        ) from error
    if not file.is_file():
        raise ModelError(
            f"{path}: its weights are to be in {printable(name)}, which is not in its folder; copy that file, too"
        )
    numbers = [place.get(key, "0") for key in ("offset", "length")]
    if not all(number.isascii() and number.isdecimal() and len(number) < 20 for number in numbers):
        raise ModelError(f"{path}: where its weights lie in {printable(name)} is not a number; export it again")
    if sum(map(int, numbers)) > file.stat().st_size:
        raise ModelError(
            f"{path}: {printable(name)} ends before the weights that the model has there; copy that file again"
        )
    return file


def _refuse_other_formats(path: Path, start: bytes) -> None:
    """Name what a file is that somebody takes for an ONNX model, and what to do.

    Raises:
        ModelError: it is a pointer of Git LFS, or an engine.
    """
    if start.startswith(b"version https://git-lfs"):
        raise ModelError(
            f"{path}: a pointer of Git LFS, not the model itself; run `git lfs pull` in its repository, or download "
            "the file from the repository's page"
        )
    # Ultralytics puts the length of a JSON text and the text in front of its engines.
    ultralytics = start[4:5] == b"{" and b'"' in start[5:16] and int.from_bytes(start[:4], "little") < 1 << 20
    if ultralytics or start[:4] in ENGINE_MAGIC:
        writer = " that Ultralytics wrote" if ultralytics else ""
        raise ModelError(
            f"{path}: a TensorRT engine{writer}; an engine cannot be turned back into a model: export the model as "
            "ONNX (Ultralytics: `yolo export format=onnx`), then `seg_perception prepare` and `build` it"
        )


def _places(model: memoryview) -> Iterator[dict[str, str]]:
    """For each tensor that is in another file, its entries `location`, `offset` and `length`.

    Raises:
        ValueError: the bytes are no Protocol Buffers message.
    """
    waiting = [("model", model)]
    while waiting:
        kind, message = waiting.pop()
        if kind == "tensor":
            place: dict[str, str] = {}
            external = False
            for field, value in _fields(message):
                external = external or (field == _DATA_LOCATION and value == _EXTERNAL)
                if field == _EXTERNAL_DATA and isinstance(value, memoryview):
                    place.update([_entry(value)])
            if external:
                yield place
            continue
        leads = _LEADS[kind]
        waiting.extend(
            (leads[field], value)
            for field, value in _fields(message)
            if field in leads and isinstance(value, memoryview)
        )


def _entry(message: memoryview) -> tuple[str, str]:
    values = {field: bytes(value) for field, value in _fields(message) if isinstance(value, memoryview)}
    key, value = (values.get(field, b"").decode("utf-8", "surrogateescape") for field in (1, 2))
    return key, value


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message: numbers, and the bytes of what has a length."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        kind, value = tag & 7, 0
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield tag >> 3, value
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        elif kind == _BYTES:
            size, at = _varint(message, at)
            yield tag >> 3, message[at : at + size]
            at += size
        else:
            raise ValueError(f"field of the unknown kind {kind}")
        if at > end:
            raise ValueError("it ends in the middle of a field")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("it ends in the middle of a number")
