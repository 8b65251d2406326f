"""Class tables from YAML files: which of a model's classes belongs to which road group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import yaml
from numpy.typing import NDArray

from .classes import NO_GROUP, ROAD_GROUPS, ClassTable, choose_table, fault_of_names, name_key
from .errors import ClassTableError, ConfigurationError
from .share import is_there, share_directory, user_path
from .text import printable
from .yaml_files import YamlFileError, read_yaml

AUTO = "auto"
_SUFFIXES = (".yaml", ".yml")
_REQUIRED = {"name", "classes", "groups"}
_OPTIONAL = {"ids", "stuff"}
# Of names in an error.
_MOST_NAMED = 8


def class_table_directory() -> Path:
    """The folder of the class tables that come with the package."""
    return share_directory() / "config" / "classes"


def load_class_table(path: Path) -> ClassTable:
    """Read a class table.

    Raises:
        ClassTableError: the file cannot be read, is not YAML, or does not have the form of config/classes/coco.yaml.
            Quotes class names and keys, and those only where the file has the form of a class table: a parameter may
            name any file of the vehicle.
    """
    content = _read(path)
    name, class_names = content["name"], _strings(path, "classes", content["classes"])
    if not isinstance(name, str) or fault_of_names([name]):
        _refuse(path, f"`name`: expected a word, got {_kind(name)}")
    if not class_names:
        _refuse(path, "`classes`: expected at least one class name, got none")
    if fault := fault_of_names(class_names):
        _refuse(path, f"`classes`: {fault}")
    _refuse_repeated(path, "classes", class_names)
    try:
        groups = _group_of(path, content["groups"], class_names)
        return ClassTable(name, class_names, groups, _stuff(path, content.get("stuff"), class_names))
    except ClassTableError as error:
        raise ClassTableError(f"{path}: {error}") from error


def write_class_table(path: Path, class_names: Sequence[str], stuff: Sequence[str] = ()) -> ClassTable:
    """Write a table of a model's own classes, to be edited; nothing is overwritten.

    Args:
        path: a YAML file that does not exist yet; the table is called like it.
        class_names: the model's class names in label order, each once.
        stuff: those without instances.

    Returns:
        The table. Classes that a table of the package knows have its road groups, the others none.

    Raises:
        ClassTableError: the names make no class table, or the file cannot be written or exists.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise ClassTableError(f"class table: {path} is not written: expected a file {' or '.join(_SUFFIXES)}")
    if fault := fault_of_names([path.stem]) or fault_of_names(class_names):
        _refuse(path, f"`classes`: {fault}")
    _refuse_repeated(path, "classes", class_names)
    known: NDArray[np.int32] = np.full(len(class_names), NO_GROUP, np.int32)
    # Where no table knows any of them, all groups begin empty.
    with suppress(ClassTableError):
        known = resolve_class_table(AUTO, class_names).groups(class_names)
    members = {
        group: [name for name, index in zip(class_names, known, strict=True) if index == number]
        for number, group in enumerate(ROAD_GROUPS)
    }
    content = {"name": path.stem, "groups": members, "stuff": list(stuff), "classes": list(class_names)}
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write("# The keys are explained in config/classes/coco.yaml.\n")
            yaml.safe_dump(content, file, sort_keys=False, allow_unicode=True)
    except FileExistsError as error:
        raise ClassTableError(f"class table: {path} exists and is not overwritten; name another file") from error
    except OSError as error:
        raise ClassTableError(f"class table: {path} cannot be written: {error.strerror}") from error
    return load_class_table(path)


def find_class_table(name_or_path: str, class_names: Sequence[str]) -> Path:
    """The file of the class table that an option or parameter names.

    Args:
        name_or_path: `auto` for the table of the package that knows most of the model's classes, the bare name of a
            table of the package, or the path of a YAML file.
        class_names: the model's class names; `auto` needs them.

    Raises:
        ClassTableError: there is no such table, or with `auto` none that knows any of the classes.
    """
    if name_or_path == AUTO:
        paths = sorted(class_table_directory().glob("*.yaml"))
        tables = [load_class_table(path) for path in paths]
        return paths[tables.index(choose_table(tables, class_names))]
    if name_or_path.endswith(_SUFFIXES) or "/" in name_or_path:
        try:
            return user_path(name_or_path)
        except ConfigurationError as error:
            raise ClassTableError(f"class table: {error}") from error
    path = class_table_directory() / f"{name_or_path}.yaml"
    if not is_there(path):
        known = sorted(file.stem for file in class_table_directory().glob("*.yaml"))
        raise ClassTableError(
            f"class table: expected {AUTO!r}, the path of a YAML file, or one of {', '.join(known)}; "
            f"got '{printable(name_or_path)}'"
        )
    return path


def resolve_class_table(name_or_path: str, class_names: Sequence[str]) -> ClassTable:
    """The class table that an option or parameter names; arguments and errors as `find_class_table`."""
    return load_class_table(find_class_table(name_or_path, class_names))


def category_groups(categories: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """The road group of each category of a COCO file, by its number: by the table that knows most of their names.

    Raises:
        ClassTableError: no table of the package knows any of them.
    """
    names = [str(each["name"]) for each in categories]
    groups = resolve_class_table(AUTO, names).groups(names).tolist()
    return {int(each["id"]): group for each, group in zip(categories, groups, strict=True)}


def category_ids(path: Path, class_names: Sequence[str]) -> NDArray[np.int64]:
    """The numbers that a data set's annotation files give to a model's classes.

    Args:
        path: a class table with `ids`.
        class_names: the model's class names in label order, C of them; compared as `ClassTable` compares them.

    Returns:
        int64 `[C]`.

    Raises:
        ClassTableError: the table has no `ids`, a malformed one, or none for one of the classes.
    """
    ids = _read(path).get("ids")
    if ids is None:
        _refuse(path, "`ids`: expected the data set's number of each class, but the table has none; use --classes coco")
    if not _is_mapping_of_integers(ids):
        _refuse(path, f"`ids`: expected a mapping from class name to integer, got {_kind(ids)}")
    known = {name_key(name): number for name, number in ids.items()}
    missing = [name for name in class_names if name_key(name) not in known]
    if missing:
        _refuse(path, f"`ids`: expected a number for every class of the model, got none for {_listed(missing)}")
    return np.array([known[name_key(name)] for name in class_names], np.int64)


def _read(path: Path) -> Mapping[str, Any]:
    """The content of a table's file, with all its keys but unchecked values."""
    if path.suffix.lower() not in _SUFFIXES:
        raise ClassTableError(f"class table: {path} is not read: expected a file {' or '.join(_SUFFIXES)}")
    try:
        content = read_yaml(path)
    except FileNotFoundError as error:
        raise ClassTableError(f"class table: {path} does not exist; check `classes` or --classes") from error
    except YamlFileError as error:
        raise ClassTableError(f"class table: {path} {error}") from error
    expected = f"expected the keys {', '.join(sorted(_REQUIRED))} and optionally {', '.join(sorted(_OPTIONAL))}"
    if not isinstance(content, dict):
        _refuse(path, f"{expected}, got {_kind(content)}")
    missing = sorted(_REQUIRED - set(content))
    unknown = sorted(map(str, set(content) - _REQUIRED - _OPTIONAL))
    if missing:
        # Then it is no class table, and what it holds is nobody's business.
        others = f", and {len(unknown)} others are there" if unknown else ""
        _refuse(path, f"{expected}; missing: {', '.join(missing)}{others}")
    if unknown:
        _refuse(path, f"{expected}; unknown: {_listed(unknown)}")
    return content


def _group_of(path: Path, groups: object, class_names: Sequence[str]) -> dict[str, str]:
    """Road group by class name, out of class names by road group."""
    if not isinstance(groups, dict):
        _refuse(path, f"`groups`: expected a mapping from road group to class names, got {_kind(groups)}")
    members = {
        str(group): _strings(path, f"groups: {printable(group)}", names or []) for group, names in groups.items()
    }
    grouped = [name for names in members.values() for name in names]
    _refuse_repeated(path, "groups", grouped)
    _refuse_unknown(path, "groups", grouped, class_names)
    return {name: group for group, names in members.items() for name in names}


def _stuff(path: Path, stuff: object, class_names: Sequence[str]) -> frozenset[str]:
    names = _strings(path, "stuff", stuff or [])
    _refuse_unknown(path, "stuff", names, class_names)
    return frozenset(map(name_key, names))


def _strings(path: Path, key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        _refuse(path, f"`{key}`: expected a list of class names, got {_kind(value)}")
    # YAML reads an unquoted `no` or `1` as something else than text.
    other = next((place for place, item in enumerate(value) if not isinstance(item, str)), None)
    if other is not None:
        _refuse(
            path,
            f"`{key}`: expected a list of class names, got {_kind(value[other])} as entry {other + 1}; quote names "
            "like 'no' and '1'",
        )
    return tuple(value)


def _refuse_repeated(path: Path, key: str, names: Sequence[str]) -> None:
    repeated = sorted(name for name, count in Counter(map(name_key, names)).items() if count > 1)
    if repeated:
        _refuse(path, f"`{key}`: expected each class once, got more than one of {_listed(repeated)}")


def _refuse_unknown(path: Path, key: str, names: Sequence[str], class_names: Sequence[str]) -> None:
    known = set(class_names)
    unknown = [name for name in names if name not in known]
    if unknown:
        _refuse(path, f"`{key}`: expected names from `classes`, got {_listed(unknown)}")


def _is_mapping_of_integers(value: object) -> bool:
    """Return whether it maps text to numbers that fit into 64 bits."""
    return isinstance(value, dict) and all(
        isinstance(name, str)
        and isinstance(number, int)
        and not isinstance(number, bool)
        and -(1 << 63) <= number < 1 << 63
        for name, number in value.items()
    )


def _listed(names: Iterable[str]) -> str:
    quoted = [f"'{printable(name)}'" for name in names]
    more = f" and {len(quoted) - _MOST_NAMED} more" if len(quoted) > _MOST_NAMED else ""
    return ", ".join(quoted[:_MOST_NAMED]) + more


def _kind(value: object) -> str:
    """Return what a value is, without saying which."""
    if isinstance(value, (str, dict, list)):
        names = {str: "text", dict: "a mapping", list: "a list"}
        return f"{names[type(value)]} of {len(value)}"
    return "nothing" if value is None else f"a value of type {type(value).__name__}"


def _refuse(path: Path, reason: str) -> NoReturn:
    raise ClassTableError(f"class table {path}: {reason}; config/classes/coco.yaml shows the form")
