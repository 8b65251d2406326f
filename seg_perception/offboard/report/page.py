"""The blocks of a report: page, verdict, lists, tables and collapsible parts.

Every block is a function from plain values to `Html`; text is escaped, so that names may hold anything. A report is a
title, a lead and sections:

    write_page(path, "Replay of drive.mcap", [verdict("All frames were read.", True)], [
        Section("Throughput", table(["", "frames/s"], [["replay", "21.4"]], numbers=1)),
        Section("Time", line_plot("Latency", [Series("model", xs, ys)], Axis("frame"), Axis("ms"))),
    ])
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from seg_perception.core.files import write_atomically

from .html import MISSING, Content, Html, element, render
from .style import SCRIPT, STYLE


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page with a heading of its own, listed in the contents.

    Attributes:
        title: its heading.
        content: text, markup, or several of these.
    """

    title: str
    content: Content


def write_page(path: Path, title: str, lead: Content, sections: Sequence[Section]) -> Path:
    """Write a page as one file that fetches nothing.

    Args:
        path: of the file; its folder exists.
        title: heading and title of the page.
        lead: what stands above the contents, such as the verdict.
        sections: the rest; those without content are left out.

    Returns:
        `path`.

    Raises:
        ConfigurationError: it cannot be written.
    """
    write_atomically(path, page(title, lead, sections).encode())
    return path


def page(title: str, lead: Content, sections: Sequence[Section]) -> Html:
    """A whole page; see `write_page`."""
    filled = [(each, body) for each in sections if (body := render(each.content))]
    contents = [element("li", element("a", each.title, href=f"#part-{n}")) for n, (each, _) in enumerate(filled)]
    main = [
        element("section", element("h2", each.title, id=f"part-{n}"), body) for n, (each, body) in enumerate(filled)
    ]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy()),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Html(STYLE)),
        element("script", Html(SCRIPT)),
    )
    navigation = element("nav", element("ul", contents), aria_label="Contents") if len(filled) > 2 else Html()
    body = element("body", element("main", element("h1", title), lead, navigation, main))
    return Html(f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n")


def _policy() -> str:
    """Nothing may be fetched, and nothing may run or style but what is written here."""
    script, style = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii") for text in (SCRIPT, STYLE)
    )
    return (
        f"default-src 'none'; img-src data:; script-src 'sha256-{script}'; style-src 'sha256-{style}'; "
        "base-uri 'none'; form-action 'none'"
    )


def verdict(sentence: str, good: bool | None, reasons: Iterable[Content] = ()) -> Html:
    """The outcome in one sentence.

    Args:
        sentence: the outcome.
        good: whether that is good; None where nothing is judged.
        reasons: what it rests on, one line each.
    """
    kind = "verdict" if good is None else f"verdict {'good' if good else 'bad'}"
    return element("div", element("strong", sentence), bullets(reasons), class_=kind)


def paragraph(*content: Content) -> Html:
    """A paragraph of text."""
    return element("p", *content)


def bullets(lines: Iterable[Content]) -> Html:
    """A list; nothing where there are no lines."""
    entries = [element("li", line) for line in lines]
    return element("ul", entries) if entries else Html()


def subheading(text: str) -> Html:
    """A heading within a section; not in the contents."""
    return element("h3", text)


def collapsed(summary: str, *content: Content) -> Html:
    """Return what is shown on demand, and in print."""
    return element("details", element("summary", summary), *content)


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[Content]],
    numbers: int | None = None,
    caption: str = "",
    sortable: bool = False,
) -> Html:
    """A table whose first column names the rows.

    Args:
        header: one for each column.
        rows: of as many cells.
        numbers: the column from which on cells are numbers: right-aligned, with digits of one width; None: no column.
        caption: above the table.
        sortable: a click on a header sorts by its column; numbers by the number the cell begins with, missing last.
    """
    kinds = ["number" if numbers is not None and column >= numbers else None for column in range(len(header))]

    def heading(text: str, kind: str | None) -> Html:
        inside = element("button", text, type="button") if sortable and text else text
        return element("th", inside, class_=kind, scope="col")

    def line(cells: Sequence[Content]) -> Html:
        first = element("th", cells[0], class_=kinds[0], scope="row")
        others = (element("td", cell, class_=kind) for cell, kind in zip(cells[1:], kinds[1:], strict=True))
        return element("tr", first, *others)

    head = element("thead", element("tr", (heading(*each) for each in zip(header, kinds, strict=True))))
    body = element("tbody", (line(row) for row in rows))
    title = element("caption", caption) if caption else ""
    # Where it is too wide for the screen it scrolls, which people without a mouse can only do if it takes the focus.
    return element("div", element("table", title, head, body), class_="scroll", tabindex=0)


def comparison(columns: Mapping[str, Mapping[str, str]]) -> Html:
    """Key and value of several things side by side, such as the manifests of engines: a row for each key.

    Args:
        columns: key and value of each thing, by its name; a key that one lacks has a dash there.
    """
    keys = dict.fromkeys(key for entries in columns.values() for key in entries)
    rows = [[key, *(entries.get(key, MISSING) for entries in columns.values())] for key in keys]
    return table(["", *columns], rows)


def number(value: float, digits: int = 3, sign: bool = False) -> str:
    """A number for a table; a dash for NaN."""
    if value != value:
        return MISSING
    return f"{value:{'+' if sign else ''}.{digits}f}"
