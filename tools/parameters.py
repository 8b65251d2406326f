"""Writes what lists the nodes' parameters, from their schemes: `python -m tools.parameters`, without ROS.

These are config/seg_perception.yaml and the tables of docs/parameters.md for `segmenter`, config/fusion.yaml and those
of docs/fusion.md for `fusion`; test/unit/test_config_files.py compares all with the schemes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from textwrap import wrap
from typing import NamedTuple

import yaml

from seg_perception.onboard.ros import scheme as segmenter
from seg_perception.onboard.ros.fusion import scheme as fusion
from seg_perception.onboard.ros.scheme import CONFIGURE, LIVE, RELOAD, START, ParameterSpec

ROOT = Path(__file__).resolve().parents[1]
_BEGIN, _END = "<!-- tables: made by `python -m tools.parameters` -->\n", "<!-- end of tables -->\n"
_INDENT = " " * 4
# How the documentation calls the times at which parameters are read.
_SHORT = {START: "start", CONFIGURE: "configure", RELOAD: "reload", LIVE: "live"}
_HEAD = """\
# All parameters of the node `{name}` with their defaults. Copy it, change what you need and start the node with
#   {name} --ros-args --params-file FILE
# Write 1.0, not 1, where the default has a point. {documentation} has the ranges and says when each may be changed.
# This file is made from the scheme in {scheme} by `python -m tools.parameters`.
/**:
  ros__parameters:
"""


class Listed(NamedTuple):
    """A node, its schemes, and the files that list them.

    Attributes:
        name: of the node.
        scheme: the module, as a path.
        specs, camera_specs: of the node and of each camera.
        of_cameras: those of some cameras by full name.
        config, documentation: the files.
    """

    name: str
    scheme: str
    specs: tuple[ParameterSpec, ...]
    camera_specs: tuple[ParameterSpec, ...]
    of_cameras: Callable[[Iterable[str]], Mapping[str, ParameterSpec]]
    config: Path
    documentation: Path

    def parameter_file(self) -> str:
        """Return the text of the parameter file: all parameters, those of one camera after `camera_names`."""
        specs: list[tuple[str, ParameterSpec]] = []
        for spec in self.specs:
            specs.append((spec.name, spec))
            if spec.name == "camera_names":
                specs += self.of_cameras(spec.default).items()
        documentation = self.documentation.relative_to(ROOT).as_posix()
        head = _HEAD.format(name=self.name, scheme=self.scheme, documentation=documentation)
        return head + "\n".join(_entry(name, spec) for name, spec in specs)

    def tables(self) -> str:
        """Return the tables of the documentation as Markdown."""
        return f"## Node\n\n{_table(self.specs)}\n## Each camera, `cameras.NAME.*`\n\n{_table(self.camera_specs)}"

    def with_tables(self, text: str) -> str:
        """Return the text of the documentation with the tables between their marks."""
        before, rest = text.split(_BEGIN)
        return f"{before}{_BEGIN}\n{self.tables()}\n{_END}{rest.split(_END)[1]}"


NODES = (
    Listed(
        "segmenter", "seg_perception/onboard/ros/scheme.py", segmenter.SCHEME, segmenter.CAMERA_SCHEME,
        segmenter.camera_parameters, ROOT / "config" / "seg_perception.yaml", ROOT / "docs" / "parameters.md",
    ),
    Listed(
        "fusion", "seg_perception/onboard/ros/fusion/scheme.py", fusion.SCHEME, fusion.CAMERA_SCHEME,
        fusion.camera_parameters, ROOT / "config" / "fusion.yaml", ROOT / "docs" / "fusion.md",
    ),
)  # fmt: skip


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
    for listed in NODES:
        listed.config.write_text(listed.parameter_file(), encoding="utf-8")
        text = listed.documentation.read_text(encoding="utf-8")
        listed.documentation.write_text(listed.with_tables(text), encoding="utf-8")
