"""Class tables from YAML files: which of a model's classes belongs to which road group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import yaml
from numpy.typing import NDArray

from ..classes import ClassTable, choose_table, name_key
from ..errors import ClassTableError
from .share import share_directory

AUTO = "auto"
_SUFFIXES = (".yaml", ".yml")
_REQUIRED = {"name", "classes", "groups"}
_OPTIONAL = {"ids", "stuff"}


def class_table_directory() -> Path:
    """The folder of the class tables that come with the package."""
    return share_directory() / "config" / "classes"


def load_class_table(path: Path) -> ClassTable:
    """Read a class table.

    Raises:
        ClassTableError: the file cannot be read, is not YAML, or does not have the form of config/classes/coco.yaml.
    """
    content = _read(path)
    name, class_names = content["name"], _strings(path, "classes", content["classes"])
    if not isinstance(name, str) or not name:
        _refuse(path, f"`name`: expected a word, got {name!r}")
    if not class_names:
        _refuse(path, "`classes`: expected at least one class name, got none")
    _refuse_repeated(path, "classes", class_names)
    try:
        groups = _group_of(path, content["groups"], class_names)
        return ClassTable(name, class_names, groups, _stuff(path, content.get("stuff"), class_names))
    except ClassTableError as error:
        raise ClassTableError(f"{path}: {error}") from error


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
        return Path(name_or_path).expanduser()
    path = class_table_directory() / f"{name_or_path}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in class_table_directory().glob("*.yaml"))
        raise ClassTableError(
            f"class table: expected {AUTO!r}, the path of a YAML file, or one of {', '.join(known)}; "
            f"got {name_or_path!r}"
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
        _refuse(path, f"`ids`: expected a mapping from class name to integer, got {ids!r}")
    known = {name_key(name): number for name, number in ids.items()}
    missing = [name for name in class_names if name_key(name) not in known]
    if missing:
        _refuse(path, f"`ids`: expected a number for every class of the model, got none for {', '.join(missing)}")
    return np.array([known[name_key(name)] for name in class_names], np.int64)


def _read(path: Path) -> Mapping[str, Any]:
    """The content of a table's file, with all its keys but unchecked values."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ClassTableError(f"class table: {path} does not exist; check `classes` or --classes") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ClassTableError(f"class table: {path} cannot be read: {error}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ClassTableError(f"class table: {path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        _refuse(path, f"expected the keys {', '.join(sorted(_REQUIRED))}, got {type(content).__name__}")
    odd = (_REQUIRED - set(content)) | (set(content) - _REQUIRED - _OPTIONAL)
    if odd:
        _refuse(
            path,
            f"expected the keys {', '.join(sorted(_REQUIRED))} and optionally {', '.join(sorted(_OPTIONAL))}; "
            f"missing or unknown: {', '.join(sorted(map(str, odd)))}",
        )
    return content


def _group_of(path: Path, groups: object, class_names: Sequence[str]) -> dict[str, str]:
    """Road group by class name, out of class names by road group."""
    if not isinstance(groups, dict):
        _refuse(path, f"`groups`: expected a mapping from road group to class names, got {type(groups).__name__}")
    members = {str(group): _strings(path, f"groups: {group}", names or []) for group, names in groups.items()}
    grouped = [name for names in members.values() for name in names]
    _refuse_repeated(path, "groups", grouped)
    unknown = [name for name in grouped if name not in class_names]
    if unknown:
        _refuse(path, f"`groups`: expected names from `classes`, got {', '.join(map(repr, unknown))}")
    return {name: group for group, names in members.items() for name in names}


def _stuff(path: Path, stuff: object, class_names: Sequence[str]) -> frozenset[str]:
    names = _strings(path, "stuff", stuff or [])
    unknown = [name for name in names if name not in class_names]
    if unknown:
        _refuse(path, f"`stuff`: expected names from `classes`, got {', '.join(map(repr, unknown))}")
    return frozenset(map(name_key, names))


def _strings(path: Path, key: str, value: object) -> tuple[str, ...]:
    # YAML reads an unquoted `no` or `1` as something else than text.
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        _refuse(path, f"`{key}`: expected a list of class names, got {value!r}; quote names like 'no' and '1'")
    return tuple(value)


def _refuse_repeated(path: Path, key: str, names: Sequence[str]) -> None:
    keys = [name_key(name) for name in names]
    repeated = sorted({name for name in keys if keys.count(name) > 1})
    if repeated:
        _refuse(path, f"`{key}`: expected each class once, got more than one of {', '.join(map(repr, repeated))}")


def _is_mapping_of_integers(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(number, int) and not isinstance(number, bool)
        for name, number in value.items()
    )


def _refuse(path: Path, reason: str) -> NoReturn:
    raise ClassTableError(f"class table {path}: {reason}; config/classes/coco.yaml shows the form")
