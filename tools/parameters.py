"""Writes what lists the node's parameters, from their scheme: `python -m tools.parameters`, without ROS.

These are config/seg_perception.yaml and the tables of docs/parameters.md; test/unit/test_config_files.py compares both
with the scheme.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from textwrap import wrap

import yaml

from seg_perception.onboard.ros.scheme import (
    CAMERA_SCHEME,
    CONFIGURE,
    LIVE,
    RELOAD,
    SCHEME,
    START,
    ParameterSpec,
    camera_parameters,
)

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "config" / "seg_perception.yaml"
DOCUMENTATION = ROOT / "docs" / "parameters.md"
_BEGIN, _END = "<!-- tables: made by `python -m tools.parameters` -->\n", "<!-- end of tables -->\n"
_INDENT = " " * 4
# How docs/parameters.md calls the times at which parameters are read.
_SHORT = {START: "start", CONFIGURE: "configure", RELOAD: "reload", LIVE: "live"}
_HEAD = """\
# All parameters of the node `segmenter` with their defaults. Copy it, change what you need and start the node with
#   segmenter --ros-args --params-file FILE
# Write 1.0, not 1, where the default has a point. docs/parameters.md has the ranges and says when each may be changed.
# This file is made from the scheme in seg_perception/onboard/ros/scheme.py by `python -m tools.parameters`.
/**:
  ros__parameters:
"""


def parameter_file() -> str:
    """Return the text of config/seg_perception.yaml: all parameters, those of one camera after `camera_names`."""
    specs: list[tuple[str, ParameterSpec]] = []
    for spec in SCHEME:
        specs.append((spec.name, spec))
        if spec.name == "camera_names":
            specs += camera_parameters(spec.default).items()
    return _HEAD + "\n".join(_entry(name, spec) for name, spec in specs)


def tables() -> str:
    """Return the tables of docs/parameters.md as Markdown."""
    return f"## Node\n\n{_table(SCHEME)}\n## Each camera, `cameras.NAME.*`\n\n{_table(CAMERA_SCHEME)}"


def with_tables(text: str) -> str:
    """Return the text of docs/parameters.md with the tables between their marks."""
    before, rest = text.split(_BEGIN)
    return f"{before}{_BEGIN}\n{tables()}\n{_END}{rest.split(_END)[1]}"


def _entry(name: str, spec: ParameterSpec) -> str:
    comment = wrap(spec.text, 120 - len(_INDENT) - 2, break_on_hyphens=False)
    lines = [*(f"# {line}" for line in comment), f"{name}: {_yaml(spec.default)}"]
    return "".join(f"{_INDENT}{line}\n" for line in lines)


def _table(specs: Iterable[ParameterSpec]) -> str:
    rows = [("name", "default", "range", "change", "meaning"), ("---",) * 5]
    rows += [
        (f"`{spec.name}`", f"`{_yaml(spec.default)}`", spec.range_text, _SHORT[spec.when], spec.text) for spec in specs
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()


if __name__ == "__main__":
    CONFIG.write_text(parameter_file(), encoding="utf-8")
    DOCUMENTATION.write_text(with_tables(DOCUMENTATION.read_text(encoding="utf-8")), encoding="utf-8")
