"""YAML of strangers: bounded, and not quoted."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest

from seg_perception.core import yaml_files
from seg_perception.core.errors import ConfigurationError
from seg_perception.core.yaml_files import MOST_BYTES, MOST_LEVELS, YamlFileError, read_yaml
from seg_perception.onboard.doctor.settings import read_settings

SECRET = "hunter2"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in pairwise("abcdefghij")
)


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "file.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_values_are_those_of_yaml(tmp_path: Path) -> None:
    text = "name: é\nlist: [1, 2.5, yes, ~]\nwhen: 2026-11-30\nnested: {a: {b: c}}\n"
    value = read_yaml(write(tmp_path, text))
    assert isinstance(value, dict)
    assert (value["name"], value["list"], value["nested"]) == ("é", [1, 2.5, True, None], {"a": {"b": "c"}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "line 2 has an alias; write it out"),
        ("a: &a [*a]\n", "line 1 has an alias"),
        ("base: &base {x: 1}\nmore:\n  <<: *base\n", "line 3 has an alias"),
        ("- " * (MOST_LEVELS + 1) + "x", f"nested deeper than {MOST_LEVELS} levels"),
        ("[" * 100_000, "nested deeper"),
        ("{a: " * 100_000, "nested deeper"),
        (f"a: {SECRET}: {SECRET}\n", "is not YAML in line 1, column 11"),
        (f"ok: 1\n\t{SECRET}", "is not YAML in line 2, column 1"),
        (f"a: !!python/object/apply:os.system ['{SECRET}']", "is not YAML in line 1, column 4"),
        (f"a: !{SECRET} 1", "is not YAML in line 1, column 4"),
        (f"? [{SECRET}]\n: 1", "is not YAML in line 1, column 3"),
        (f"a: &{SECRET} 1\nb: &{SECRET} 2", "is not YAML in line 2"),
        ("a: 2020-13-45", "none that YAML allows"),
        ("a: 2001-12-14t21:59:43.10-99:99", "none that YAML allows"),
        ("a: " + "9" * 5000, "none that YAML allows"),
        ("a: 0x_", "none that YAML allows"),
        (f"a: '{SECRET}\x00'", "is not YAML"),
        (f"one: {SECRET}\n---\ntwo: {SECRET}\n", "is not YAML in line 2"),
        (SECRET.encode() + b"\xff", "expected text in UTF-8"),
        (b"\xff\xfe" + SECRET.encode("utf-16-le"), "expected text in UTF-8"),
        ("#" * (MOST_BYTES + 1), "at most 1 MiB"),
    ],
)
def test_what_is_refused_is_not_quoted(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(YamlFileError) as caught:
        read_yaml(path)
    assert message in str(caught.value)
    assert SECRET not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_without_the_parser_in_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    monkeypatch.setattr(yaml_files, "_LOADER", yaml.SafeLoader)
    assert read_yaml(write(tmp_path, "a: [1, {b: c}]")) == {"a": [1, {"b": "c"}]}
    for text in (BOMB, "[" * 100_000, f"a: {SECRET}: {SECRET}", f"'{SECRET}\x00'", "a: 0x_", f"a: !{SECRET} 1"):
        with pytest.raises(YamlFileError) as caught:
            read_yaml(write(tmp_path, text))
        assert SECRET not in str(caught.value)


def test_a_fifo_and_a_device_do_not_make_it_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.yaml")
    for path in (tmp_path / "fifo.yaml", Path("/dev/zero"), tmp_path):
        with pytest.raises(YamlFileError, match="cannot be read"):
            read_yaml(path)
    with pytest.raises(YamlFileError, match="File name too long"):
        read_yaml(tmp_path / ("x" * 300))
    with pytest.raises(YamlFileError, match="cannot be read"):
        read_yaml(tmp_path / "a\0b")
    with pytest.raises(FileNotFoundError):
        read_yaml(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("segmenter: &a {ros__parameters: *a}", "has an alias"),
        ("x0: &x {ros__parameters: {model: a}}\nx1: {a: *x, b: *x}\n", "has an alias"),
        (f"segmenter:\n  ros__parameters:\n    camera_names: {SECRET}\n", "expected a list of names, got str"),
        (f"segmenter:\n  ros__parameters: {SECRET}\n", "expected `ros__parameters`"),
        (f"{SECRET}\n", "expected `ros__parameters`"),
    ],
)
def test_a_parameter_file_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read_settings(write(tmp_path, text))
    assert message in str(caught.value)
    assert SECRET not in str(caught.value)
