"""The catalogue of models by name, `config/models.yaml`, and the folder that holds those that were fetched."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from .errors import ConfigurationError
from .share import is_there, share_directory, user_path
from .text import printable
from .yaml_files import YamlFileError, read_yaml

TASKS = ("instances", "panoptic", "semantic")
# What a model is exported by, where that is no recipe: it is ONNX already, or it comes with the package.
ONNX, SHIPPED = "onnx", "shipped"
# Licences that allow use in a product, closed source and changed, with no more than a notice.
PERMISSIVE = frozenset({"Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause"})
UNKNOWN = "unknown"
PRECISIONS = ("fp32", "fp16")

_LONGEST_NAME = 100
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Of each kind of checksum, what it looks like.
_CHECKSUMS = {
    "sha256": re.compile("[0-9a-f]{64}"),
    "sha256-prefix": re.compile("[0-9a-f]{8,63}"),
    "md5": re.compile("[0-9a-f]{32}"),
}
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Checksum:
    """What is known of a file's content.

    Attributes:
        kind: `sha256`, `sha256-prefix`, `md5`, or empty where nothing is known.
        digits: in hexadecimal, lower case.
    """

    kind: str = ""
    digits: str = ""

    def fits(self, sha256: str, md5: str) -> bool:
        """Return whether a file of these digests may be the one; without a checksum any file may."""
        return (md5 if self.kind == "md5" else sha256).startswith(self.digits)

    def __str__(self) -> str:
        return f"{self.kind} {self.digits}" if self.kind else "no checksum"


@dataclass(frozen=True, slots=True)
class Recipe:
    """The export of a checkpoint by the family's own package.

    Attributes:
        packages: what to install with pip, in an environment of its own.
        how: the commands or code; `{file}` stands for the checkpoint and `{variant}` for the entry's.
    """

    packages: str
    how: str

    def steps(self, file: str, variant: str) -> list[str]:
        """Return the lines of `how` for a checkpoint and a variant."""
        return self.how.format(file=file, variant=variant).rstrip().splitlines()


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A model that can be fetched by name.

    Attributes:
        name: what `model:=` and the commands take.
        family: module of `toolchain/families`.
        task: one of `TASKS`.
        input_size: height and width of the network input in pixels; None where the network takes any.
        classes: name of the class table of the model's outputs.
        data: what it was trained on.
        code_licence, weights_licence: SPDX identifiers, or `unknown`.
        mask_ap: published, in percent; None where none was found.
        mask_ap_source: who published it, and on which data.
        urls: where the file is, the first one preferred.
        file: its name in a mirror and in the folder of downloads; of each entry another.
        checksum: of the file.
        size: bytes of the file; 0 where unknown.
        export: `onnx`, `shipped`, or the name of a recipe.
        variant: what the family's own package calls the model.
    """

    name: str
    family: str
    task: str
    input_size: tuple[int, int] | None
    classes: str
    data: str
    code_licence: str
    weights_licence: str
    mask_ap: float | None
    mask_ap_source: str
    urls: tuple[str, ...]
    file: str
    checksum: Checksum
    size: int
    export: str
    variant: str

    @property
    def restrictive_licences(self) -> list[str]:
        """Licences that have to be accepted before the file is used, such as `weights: AGPL-3.0`."""
        licences = (("code", self.code_licence), ("weights", self.weights_licence))
        return [f"{what}: {licence}" for what, licence in licences if licence not in PERMISSIVE]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All models by name, and the recipes that export them."""

    entries: Mapping[str, CatalogueEntry]
    recipes: Mapping[str, Recipe]

    def entry(self, name: str) -> CatalogueEntry:
        """Return the entry of that name.

        Raises:
            ConfigurationError: there is none.
        """
        if name not in self.entries:
            close = get_close_matches(name, self.entries, 3)
            advice = f"did you mean {' or '.join(close)}? " if close else ""
            raise ConfigurationError(
                f"model '{printable(name)}': is not in the catalogue; {advice}`seg_perception models` lists all names"
            )
        return self.entries[name]


def catalogue() -> Catalogue:
    """Return the catalogue that comes with the package.

    Raises:
        ConfigurationError: it is missing or malformed.
    """
    path = share_directory() / "config" / "models.yaml"
    try:
        state = path.stat()
    except OSError as error:
        raise ConfigurationError(f"model catalogue {path}: cannot be read ({error.strerror})") from error
    return _cached(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4)
def _cached(path: Path, _changed: int, _size: int) -> Catalogue:
    return load_catalogue(path)


def models_folder() -> Path:
    """Return the folder of fetched models; it need not exist.

    That is `models` in `SEG_PERCEPTION_HOME`, else `seg_perception/models` in `XDG_DATA_HOME`, else in ~/.local/share.

    Raises:
        ConfigurationError: none of the two is set, and the user has no home folder.
    """
    if home := os.environ.get("SEG_PERCEPTION_HOME"):
        return user_path(home).absolute() / "models"
    data = os.environ.get("XDG_DATA_HOME", "")
    # The specification asks to ignore a relative one.
    base = Path(data) if Path(data).is_absolute() else user_path("~/.local/share")
    return base / "seg_perception" / "models"


def fetched_path(name: str, precision: str = "fp32") -> Path:
    """Return where the canonical model of an entry is once it was fetched; `models_folder` has the errors."""
    return models_folder() / (f"{name}.onnx" if precision == "fp32" else f"{name}-{precision}.onnx")


def shipped_path(entry: CatalogueEntry) -> Path:
    """Return the file of an entry that comes with the package."""
    return share_directory() / "engines" / entry.file


def model_by_name(name: str) -> Path | None:
    """Return the file of a model that is known by its name.

    Args:
        name: of an entry of the catalogue, or of a file in the folder of models without its suffix, such as
            `rfdetr-seg-nano-fp16`.

    Returns:
        Its file, or None where the name is neither.

    Raises:
        ConfigurationError: the model is in the catalogue and was not fetched, which names the command that does it; or
            the name is nearly one of the catalogue.
    """
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        return None
    entries = catalogue().entries
    plain, _, precision = name.rpartition("-")
    if name in entries or precision not in PRECISIONS:
        plain, precision = name, ""
    entry = entries.get(plain)
    shipped = entry is not None and entry.export == SHIPPED and not precision
    path = shipped_path(entries[name]) if shipped else fetched_path(name)
    if is_there(path):
        return path
    if entry is not None and entry.export != SHIPPED:
        raise ConfigurationError(
            f"model '{name}': is in the catalogue, but {path} is not there; fetch it with\n"
            f"    seg_perception fetch {plain}{f' --precision {precision}' if precision else ''}\n"
            "(nothing else downloads models; SEG_PERCEPTION_HOME names another folder to look in)"
        )
    # A word without a suffix is no model file, so one that is nearly a name was meant to be that name.
    if get_close_matches(name, entries, 1, 0.9):
        catalogue().entry(name)
    return None


def load_catalogue(path: Path) -> Catalogue:
    """Read a catalogue.

    Raises:
        ConfigurationError: it cannot be read, or an entry is malformed; names the entry and the field.
    """
    try:
        content = read_yaml(path)
    except FileNotFoundError as error:
        raise ConfigurationError(f"model catalogue {path}: does not exist") from error
    except YamlFileError as error:
        raise ConfigurationError(f"model catalogue {path} {error}") from error
    try:
        top = _Fields("", content, {"recipes", "groups"})
        recipes = {name: _recipe(fields) for name, fields in top.mapping("recipes", {"packages", "how"})}
        entries = [_entry(name, fields, recipes) for name, fields in _merged(top)]
        _refuse_repeated("name", [entry.name for entry in entries])
        _refuse_repeated("file", [entry.file for entry in entries])
    except _FieldError as error:
        raise ConfigurationError(f"model catalogue {path}: {error}") from error
    return Catalogue({entry.name: entry for entry in entries}, recipes)


_ENTRY_FIELDS = frozenset(
    {"family", "task", "input", "classes", "data", "code_licence", "weights_licence", "mask_ap", "mask_ap_source"}
    | {"urls", "file", "checksum", "bytes", "export", "variant"}
)


class _FieldError(Exception):
    """What is wrong with which field."""


class _Fields:
    """The fields of one mapping of the file, taken out with their types checked.

    Attributes:
        origin: which mapping it is, for messages.
    """

    def __init__(self, origin: str, content: object, known: frozenset[str] | set[str]) -> None:
        self.origin = origin
        if not isinstance(content, dict):
            self.refuse("", f"expected a mapping with the fields {', '.join(sorted(known))}", content)
        self._content: Mapping[Any, Any] = content
        if unknown := [str(key) for key in content if key not in known]:
            self.refuse("", f"expected the fields {', '.join(sorted(known))}", ", ".join(sorted(unknown)))

    def refuse(self, field: str, expected: str, value: object) -> NoReturn:
        """Say what was expected of a field."""
        shown = "nothing" if value is None else f"'{printable(value)}'"
        place = ": ".join(filter(None, (self.origin, f"`{field}`" if field else "")))
        raise _FieldError(f"{place or 'the file'}: {expected}, got {shown}")

    def take(self, field: str, kind: type[_Value], expected: str, default: _Value | None = None) -> _Value:
        """Return the field, which has to be of a type."""
        value = self._content.get(field, default)
        if not isinstance(value, kind) or isinstance(value, bool):
            self.refuse(field, f"expected {expected}", value)
        return value

    def text(self, field: str, default: str | None = None) -> str:
        """Return a field that is text."""
        return self.take(field, str, "text", default)

    def of(self, field: str, fits: Callable[[str], object], expected: str, default: str | None = None) -> str:
        """Return a field that is text of a certain form."""
        value = self.text(field, default)
        if not fits(value):
            self.refuse(field, f"expected {expected}", value)
        return value

    def number(self, field: str) -> float | None:
        """Return a field that is a number, None where it is missing."""
        value = self._content.get(field)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            self.refuse(field, "expected a number", value)
        return None if value is None else float(value)

    def texts(self, field: str) -> list[str]:
        """Return a field that is a list of text, empty where it is missing."""
        values = self.take(field, list, "a list of text", [])
        if not all(isinstance(value, str) for value in values):
            self.refuse(field, "expected a list of text", values)
        return values

    def mapping(self, field: str, known: frozenset[str] | set[str]) -> list[tuple[str, _Fields]]:
        """Return the mappings by name that a field holds."""
        content = self.take(field, dict, "a mapping by name", {})
        return [(str(name), _Fields(printable(name), value, known)) for name, value in content.items()]

    def over(self, shared: _Fields) -> _Fields:
        """Return these fields, and those of `shared` that are not among them."""
        return _Fields(self.origin, {**shared._content, **self._content}, _ENTRY_FIELDS)


def _merged(top: _Fields) -> list[tuple[str, _Fields]]:
    """The entries of all groups, with what their group shares."""
    merged = []
    for place, content in enumerate(top.take("groups", list, "a list of groups"), 1):
        group = _Fields(f"group {place}", content, {"shared", "models"})
        shared = _Fields(f"group {place}: shared", group.take("shared", dict, "a mapping", {}), _ENTRY_FIELDS)
        merged += [(name, fields.over(shared)) for name, fields in group.mapping("models", _ENTRY_FIELDS)]
    return merged


def _recipe(fields: _Fields) -> Recipe:
    recipe = Recipe(fields.text("packages"), fields.text("how"))
    try:
        recipe.steps("", "")
    except (KeyError, IndexError, ValueError):
        fields.refuse("how", "expected text with {file} and {variant} and no other braces", recipe.how)
    return recipe


def _entry(name: str, fields: _Fields, recipes: Mapping[str, Recipe]) -> CatalogueEntry:
    if not _NAME.fullmatch(name) or name.endswith(tuple(f"-{precision}" for precision in PRECISIONS)):
        fields.refuse("", "expected a name of lower-case letters and digits, joined by `-`, without a precision", name)
    export = fields.of(
        "export", {ONNX, SHIPPED, *recipes}.__contains__, f"one of {', '.join((ONNX, SHIPPED, *recipes))}"
    )
    urls = fields.texts("urls")
    if bool(urls) == (export == SHIPPED) or not all(url.startswith("https://") for url in urls):
        fields.refuse("urls", f"expected addresses with https, and none for a model that is {SHIPPED}", urls)
    file = fields.of("file", _FILE.fullmatch, "the name of a file", urls[0].rpartition("/")[2] if urls else None)
    size = fields.take("bytes", int, "a number of bytes", 0)
    if size < 0:
        fields.refuse("bytes", "expected a number of bytes", size)
    if (export in (ONNX, SHIPPED)) != file.endswith(".onnx"):
        fields.refuse("file", "expected a name that ends with .onnx for a model that needs no recipe only", file)
    return CatalogueEntry(
        name=name,
        family=fields.of("family", _NAME.fullmatch, "the name of a family"),
        task=fields.of("task", TASKS.__contains__, f"one of {', '.join(TASKS)}"),
        input_size=_input_size(fields),
        classes=fields.text("classes"),
        data=fields.text("data"),
        code_licence=fields.text("code_licence"),
        weights_licence=fields.text("weights_licence"),
        mask_ap=_mask_ap(fields),
        mask_ap_source=fields.text("mask_ap_source", ""),
        urls=tuple(urls),
        file=file,
        checksum=_checksum(fields),
        size=size,
        export=export,
        variant=fields.text("variant", ""),
    )


def _input_size(fields: _Fields) -> tuple[int, int] | None:
    text = fields.of("input", re.compile(r"any|[1-9]\d{1,4}x[1-9]\d{1,4}").fullmatch, "HEIGHTxWIDTH or any")
    if text == "any":
        return None
    height, _, width = text.partition("x")
    return int(height), int(width)


def _mask_ap(fields: _Fields) -> float | None:
    value = fields.number("mask_ap")
    if value is not None and not 1 < value <= 100:
        fields.refuse("mask_ap", "expected percent, a number above 1 and at most 100", value)
    if value is not None and not fields.text("mask_ap_source", ""):
        fields.refuse("mask_ap_source", "expected who published the mask AP", "")
    return value


def _checksum(fields: _Fields) -> Checksum:
    forms = f"one of {', '.join(f'{kind}:DIGITS' for kind in _CHECKSUMS)} in lower case, or none"
    text = fields.text("checksum")
    if text == "none":
        return Checksum()
    kind, _, digits = text.partition(":")
    if kind not in _CHECKSUMS or not _CHECKSUMS[kind].fullmatch(digits):
        fields.refuse("checksum", f"expected {forms}", text)
    return Checksum(kind, digits)


def _refuse_repeated(field: str, values: list[str]) -> None:
    if repeated := sorted({value for value in values if values.count(value) > 1}):
        raise _FieldError(f"`{field}`: expected another one for each model, got {', '.join(repeated)} more than once")
