"""The layers of the package, from the top: `python -m tools.layers` writes their picture into CONTRIBUTING.md.

test/unit/test_layers.py holds the imports to the same table.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import NamedTuple

CONTRIBUTING = Path(__file__).resolve().parents[1] / "CONTRIBUTING.md"
_BEGIN, _END = "<!-- layers: made by `python -m tools.layers` -->\n", "<!-- end of layers -->\n"


class Layer(NamedTuple):
    """Rooms of the package that do not import one another, and what they hold."""

    rooms: tuple[str, ...]
    content: str


# A room may import from the rows below its own, and from itself. Nothing imports onboard.ros.
LAYERS = (
    Layer(("cli",), "one module for each command"),
    Layer(("offboard.fleet",), "many bags at once"),
    Layer(
        ("offboard.toolchain", "offboard.replay", "offboard.label", "offboard.streetworld"),
        "models to engines; bags; labels; a street with truth",
    ),
    Layer(("offboard.evaluation",), "models over labelled sets, and the page of results"),
    Layer(("offboard.models", "offboard.report"), "downloads of models by name; blocks of HTML reports"),
    Layer(("offboard.data", "offboard.metrics"), "images, videos, bags; overlaps, average precision"),
    Layer(("onboard.ros",), "the node; rclpy and message packages only here"),
    Layer(("onboard.monitor", "onboard.doctor"), "`seg_perception top` and `seg_perception doctor`"),
    Layer(("onboard.pipeline", "onboard.fusion"), "segmenter, tracking, overlay; masks and points to objects in 3D"),
    Layer(("onboard.backend",), "host/ and tensorrt/: run a model, select, paint"),
    Layer(("core.messages",), "serialized ROS messages"),
    Layer(("core.encodings",), "image buffers to arrays"),
    Layer(("core.class_tables", "core.catalogue", "core.share", "core.yaml_files"), "files below config/"),
    Layer(
        ("core.contract", "core.manifest", "core.frame", "core.geometry", "core.instances", "core.classes",
         "core.boxes", "core.assignment", "core.files", "core.text", "core.interpreter", "core.onnx_files",
         "core.errors"),
        "the canonical model and its values; NumPy only",
    ),
)  # fmt: skip


def picture(width: int = 46) -> str:
    """Return the table as a block of Markdown: a line for each layer, grouped by the first folder."""
    lines, last = [], ""
    for layer in LAYERS:
        stratum, _, room = layer.rooms[0].partition(".")
        if not room:
            lines.append(f"{stratum:{width + 6}}{layer.content}")
            continue
        if stratum != last:
            lines.append(f"{stratum}/")
        rooms = " ".join(room.partition(".")[2] for room in layer.rooms)
        *first, rooms = wrap(rooms, width)
        lines += [f"    {row}" for row in first]
        lines.append(f"    {rooms:{width}}  {layer.content}")
        last = stratum
    return "".join(f"    {line}\n" for line in lines)


def with_layers(text: str) -> str:
    """Return the text of CONTRIBUTING.md with the picture of the layers between its marks."""
    before, rest = text.split(_BEGIN)
    return f"{before}{_BEGIN}\n{picture()}\n{_END}{rest.split(_END)[1]}"


if __name__ == "__main__":
    CONTRIBUTING.write_text(with_layers(CONTRIBUTING.read_text(encoding="utf-8")), encoding="utf-8")
