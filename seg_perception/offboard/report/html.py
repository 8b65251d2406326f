"""Markup that is safe by construction: whatever is not `Html` is text, and text is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TypeAlias

from seg_perception.core.text import message_text

MISSING = "\N{EN DASH}"  # in place of a value that there is none of
_EMPTY = frozenset({"br", "hr", "img", "input", "meta"})  # elements that have no end tag


class Html(str):
    """Markup, ready to be part of a page."""

    __slots__ = ()


Content: TypeAlias = "str | Iterable[Content]"
Attribute: TypeAlias = "str | int | float | bool | None"


def render(content: Content) -> Html:
    """Markup of any content: `Html` as it is, other text escaped, everything else one after another."""
    if isinstance(content, Html):
        return content
    if isinstance(content, str):
        return Html(escape(visible(content)))
    return Html("".join(render(each) for each in content))


def element(tag: str, *content: Content, **attributes: Attribute) -> Html:
    """One element.

    Args:
        tag: its name.
        content: what it holds; text is escaped.
        attributes: `class_` is `class`, `data_value` is `data-value`; True is an attribute without a value, None and
            False leave it out.
    """
    start = "".join(
        f" {name.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(visible(_text(value)))}"')
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    return Html(f"<{tag}{start}>" if tag in _EMPTY else f"<{tag}{start}>{render(content)}</{tag}>")


def visible(text: str) -> str:
    r"""Return text with what no page can hold escaped: the byte of a file name that is no UTF-8 as `\xff`."""
    return message_text(text, len(text))


def _text(value: Attribute) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
