"""What a reader of labels left out, and why."""

from __future__ import annotations

from dataclasses import dataclass, field

from seg_perception.core.text import printable

# More reasons than this are summed up: nobody reads a list of fifty categories.
_MOST_LINES = 12


@dataclass(slots=True)
class Omissions:
    """Reasons for which a reader left something out, each with its count and where it came first."""

    _found: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, reason: str, where: object) -> None:
        """Count something that is left out.

        Args:
            reason: what it is and why it is left out, such as `cuboid: not read`; the same text for all of a kind.
            where: the file, image or line, which may be a stranger's text.
        """
        count, first = self._found.get(reason, (0, printable(where)))
        self._found[reason] = count + 1, first

    def update(self, other: Omissions) -> None:
        """Add what another reader left out."""
        for reason, (count, where) in other._found.items():
            own, first = self._found.get(reason, (0, where))
            self._found[reason] = own + count, first

    @property
    def count(self) -> int:
        """Return the number of things that are left out."""
        return sum(count for count, _ in self._found.values())

    def lines(self) -> tuple[str, ...]:
        """Return a sentence for each reason, the most frequent first."""
        ordered = sorted(self._found.items(), key=lambda item: -item[1][0])
        lines = [f"{count} x {printable(reason)} (first: {where})" for reason, (count, where) in ordered]
        if len(lines) <= _MOST_LINES:
            return tuple(lines)
        rest = sum(count for _, (count, _) in ordered[_MOST_LINES - 1 :])
        more = len(lines) - _MOST_LINES + 1
        return (*lines[: _MOST_LINES - 1], f"{rest} x for {more} other reasons, such as {lines[_MOST_LINES - 1]}")
