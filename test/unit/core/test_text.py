"""Text of strangers: nothing of it reaches a terminal, a log or a message as it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg_perception.core.text import is_printable, message_text, printable

ANY = st.text(st.characters(codec=None, categories=None), max_size=400)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("front camera é 前", "front camera é 前"),
        ("a\n[FATAL] brakes", "a\\x0a[FATAL] brakes"),
        ("\x1b[2J\x1b]0;owned\x07", "\\x1b[2J\\x1b]0;owned\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("half \ud800", "half \\ud800"),
        ("file \udcff", "file \\xff"),
        ("abc\u202etxt.exe", "abc\\u202etxt.exe"),
    ],
)
def test_what_could_harm_is_shown_as_in_python(text: str, expected: str) -> None:
    assert printable(text) == expected


@given(ANY, st.integers(0, 300))
def test_it_is_one_line_of_bounded_length_that_utf8_can_hold(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert is_printable(shown)
    assert len(shown.splitlines()) <= 1
    assert len(shown.encode()) <= 6 * limit + 40


def test_a_long_text_is_cut_and_says_so() -> None:
    assert printable("x" * 1000, 10) == "x" * 10 + "... (990 more characters)"


def test_a_message_keeps_its_line_breaks() -> None:
    assert message_text("one\n\ttwo\x1b[0m") == "one\n\ttwo\\x1b[0m"
