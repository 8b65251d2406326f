"""How long steps show how far they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Progress(Protocol):
    """Wraps what is iterated over and shows how far it is."""

    def __call__(self, items: Iterable[Item], title: str, count: int | None) -> Iterable[Item]:
        """The same items; `count` of them, None where that is not known."""


def silent(items: Iterable[Item], title: str, count: int | None) -> Iterable[Item]:
    """Shows nothing."""
    return items


def bar(items: Iterable[Item], title: str, count: int | None) -> Iterable[Item]:
    """Shows a bar on a terminal."""
    from tqdm import tqdm

    shown: Iterable[Item] = tqdm(items, desc=title, total=count, leave=False, disable=None)
    return shown
