"""Names of layers in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

_SHOWN = 5


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def uncounted(names: Sequence[str]) -> str:
    """Return what to say of layers whose multiply-accumulates are not known; there is at least one."""
    layers = "layer of unknown size is" if len(names) == 1 else "layers of unknown size are"
    return f"{len(names)} {layers} not counted: {listed(names)}"
