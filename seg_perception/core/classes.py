"""The road groups, and which of a model's classes belongs to which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import ClassTableError
from .text import is_printable, printable

ROAD_GROUPS = ("pedestrian", "vehicle", "traffic_sign", "traffic_light")
NO_GROUP = -1
NO_GROUP_NAME = "other"
# The largest vocabularies of detectors are near to it. Longer names belong to no class: they travel in every message.
MOST_CLASSES, LONGEST_NAME = 25_000, 200


def group_name(group: int) -> str:
    """The name of a road group by its index; `other` for `NO_GROUP`."""
    return NO_GROUP_NAME if group == NO_GROUP else ROAD_GROUPS[group]


def fault_of_names(names: Sequence[str]) -> str:
    """Return why names of classes cannot be used; empty for good ones.

    What reads names calls this, so that whatever writes them later (messages, JSON, logs, pages) need not fail.
    """
    if len(names) > MOST_CLASSES:
        return f"expected at most {MOST_CLASSES} classes, got {len(names)}"
    for label, name in enumerate(names):
        if not name.strip():
            return f"class {label}: expected a name, got one that is empty"
        if len(name) > LONGEST_NAME:
            return f"class {label}: expected a name of at most {LONGEST_NAME} characters, got {len(name)}"
        if not is_printable(name):
            return f"class {label}: expected a name without control characters, got {printable(name)}"
    return ""


@dataclass(frozen=True, slots=True)
class ClassTable:
    """Names of a data set's classes, in order, and the road group of those that have one.

    Attributes:
        name: how the table is called (`coco`, `cityscapes`, ...).
        class_names: the classes in label order.
        group_of: road group by class name; names compare case-insensitively, `_`, `-` and space are the same.
        stuff: the classes that have no instances (road, sky, ...), as `name_key` writes them.
    """

    name: str
    class_names: tuple[str, ...]
    group_of: Mapping[str, str]
    stuff: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for class_name, group in self.group_of.items():
            if group not in ROAD_GROUPS:
                raise ClassTableError(
                    f"class table {self.name!r}: class {class_name!r} has group {printable(group)!r}, "
                    f"expected one of {', '.join(ROAD_GROUPS)}"
                )

    def covers(self, class_names: Sequence[str]) -> int:
        """Return how many of `class_names` this table knows."""
        known = {name_key(name) for name in (*self.class_names, *self.group_of)}
        return sum(name_key(name) in known for name in class_names)

    def groups(self, class_names: Sequence[str]) -> NDArray[np.int32]:
        """The road group of each class of a model.

        Args:
            class_names: the model's class names in label order, C of them.

        Returns:
            int32 `[C]`: index into `ROAD_GROUPS`, or `NO_GROUP`.
        """
        group_of = {name_key(name): ROAD_GROUPS.index(group) for name, group in self.group_of.items()}
        return np.array([group_of.get(name_key(name), NO_GROUP) for name in class_names], np.int32)


def choose_table(tables: Sequence[ClassTable], class_names: Sequence[str]) -> ClassTable:
    """Return the table that knows most of a model's classes; of equals the one with the fewest classes.

    Raises:
        ClassTableError: none of the tables knows any of the classes.
    """
    best = max(tables, key=lambda table: (table.covers(class_names), -len(table.class_names)), default=None)
    if best is None or best.covers(class_names) == 0:
        raise ClassTableError(
            f"no class table knows any of the model's classes ({', '.join(class_names[:8])}, ...); "
            f"tables looked at: {', '.join(table.name for table in tables) or 'none'}; "
            "write one after the pattern of config/classes/coco.yaml and name it with --classes or parameter `classes`"
        )
    return best


def name_key(name: str) -> str:
    """A class name as it is compared: without case; `_`, `-` and space are the same."""
    return name.strip().lower().replace("_", " ").replace("-", " ")
