r"""Text that strangers chose, made fit for a log, a terminal, a message or a page.

Names of topics, nodes, classes, files and fields are chosen by others. They may hold escape sequences that clear a
terminal, line breaks that forge a log line, half characters that no file and no message takes, or megabytes.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence

# Longest text of a stranger that a message quotes.
QUOTE_LIMIT = 200
# Longest error message that is logged, answered by a service or published.
MESSAGE_LIMIT = 2000
# Control characters, half characters, line and paragraph separators, and what turns the direction of writing.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# As above, but for the line breaks and tabs that a text of several lines has.
_UNPRINTABLE_BUT_LAYOUT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: object, limit: int = QUOTE_LIMIT) -> str:
    r"""Return text of a stranger as one line that is safe to print, bounded in length.

    Args:
        text: anything; objects are taken by their `str`.
        limit: most characters of it that are kept.

    Returns:
        The text with control characters, half characters and direction marks as in Python (`\x1b`, `\ud800`); where it
        is longer than `limit`, its beginning and how many characters were left out.
    """
    whole = str(text)
    # Cut before it is escaped, so that a text of gigabytes costs no more than its beginning.
    return _UNPRINTABLE.sub(_escaped, whole[:limit]) + _rest(whole, limit)


def shortened(text: str, limit: int = QUOTE_LIMIT) -> str:
    """Return text as it is, cut behind `limit` characters; for what is stored or sent on and not printed."""
    return text[:limit] + _rest(text, limit)


def message_text(text: object, limit: int = MESSAGE_LIMIT) -> str:
    """Return an error message as text of bounded length that is safe to log and to publish; line breaks stay."""
    whole = str(text)
    return _UNPRINTABLE_BUT_LAYOUT.sub(_escaped, whole[:limit]) + _rest(whole, limit)


def is_printable(text: str) -> bool:
    """Return whether a text holds nothing that `printable` would escape; its length does not matter."""
    return _UNPRINTABLE.search(text) is None


def aligned(rows: Sequence[Sequence[str]], left: Container[int] = (0,)) -> list[str]:
    """Return the rows of a table as lines; the columns in `left` are aligned to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _rest(whole: str, limit: int) -> str:
    return f"... ({len(whole) - limit} more characters)" if len(whole) > limit else ""


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    # A byte of a file name that is no UTF-8 is shown as that byte.
    if code < 0x100 or 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code & 0xFF:02x}"
    return f"\\u{code:04x}"
