"""A small model that really finds things: rectangles of known colours on grey.

`colour_model` is a raw export in the layout of YOLOv8-seg, written by hand, that needs no training and no download.
`paint_scene` draws images for it together with the right answer. So the toolchain, the backends, the command line
and the node can be tested end to end anywhere.

What the model sees: class c has the colour `COLOURS[c]`. A pixel belongs to the class if its colour is nearer to the
class's than half the distance from there to `BACKGROUND`, which is where a blurred edge of a rectangle is half way.
At each cell of 8 x 8 pixels, the pixel right below and right of the cell's centre decides: if it belongs to a class,
the cell predicts the rectangle as far as the class extends from it without a gap, to the left, right, top and bottom.
Masks follow the colour. So rectangles of one class must not touch, and the shorter side must have 8 pixels or more
in the network input; of a rectangle behind another one, each cell sees its own visible part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

NAMES = ("person", "car", "stop sign", "traffic light")
BACKGROUND = 114
# Each is 300 from the background in the sum over channels; of the first four, any two are 400 apart, so that no
# colour and no blend of two belongs to two classes.
COLOURS = (
    (214, 14, 14),
    (14, 14, 214),
    (214, 214, 214),
    (14, 214, 14),
    (214, 214, 14),
    (14, 214, 214),
    (214, 14, 214),
    (14, 14, 14),
)
FAULT_COLOUR = (255, 255, 255)
STRIDE = 8
MASK_STRIDE = 4
PROTOTYPES = 32
MASK_GAIN = 16.0
_CHANNEL_SUM = 300 / 255


@dataclass(frozen=True)
class Scene:
    """An image and what is on it.

    Attributes:
        image: uint8 `[height, width, 3]`, RGB.
        boxes: float32 `[N, 4]`, x1 y1 x2 y2 in pixels.
        labels: int32 `[N]`, index into `NAMES`.
        instance_map: uint16 `[height, width]`, 1 + the index of the rectangle that is visible there, 0 elsewhere.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int32]
    instance_map: NDArray[np.uint16]


def paint_scene(width: int, height: int, rectangles: Sequence[tuple[int, int, int, int, int]]) -> Scene:
    """Draw rectangles `(x1, y1, x2, y2, label)` in whole pixels, later ones over earlier ones."""
    image = np.full((height, width, 3), BACKGROUND, np.uint8)
    instance_map = np.zeros((height, width), np.uint16)
    for index, (left, top, right, bottom, label) in enumerate(rectangles):
        image[top:bottom, left:right] = COLOURS[label]
        instance_map[top:bottom, left:right] = index + 1
    table = np.array(rectangles, np.float32).reshape(-1, 5)
    return Scene(image, table[:, :4], table[:, 4].astype(np.int32), instance_map)


def random_scene(
    rng: np.random.Generator, width: int, height: int, count: int, sides: tuple[int, int] = (16, 64), grid: int = 1
) -> Scene:
    """Draw up to `count` rectangles that keep 8 pixels from each other; fewer where they do not fit.

    Args:
        rng: decides everything.
        width, height: of the image.
        count: how many.
        sides: shortest and longest side.
        grid: all coordinates are multiples of this.
    """
    rectangles: list[tuple[int, int, int, int, int]] = []
    for _ in range(20 * count):
        if len(rectangles) == count:
            break
        across, down = (int(rng.integers(sides[0], sides[1] + 1)) // grid * grid for _ in range(2))
        if across > width or down > height:
            continue
        left = int(rng.integers(0, width - across + 1)) // grid * grid
        top = int(rng.integers(0, height - down + 1)) // grid * grid
        right, bottom = left + across, top + down
        apart = (
            right + 8 <= other[0] or other[2] + 8 <= left or bottom + 8 <= other[1] or other[3] + 8 <= top
            for other in rectangles
        )
        if all(apart):
            rectangles.append((left, top, right, bottom, int(rng.integers(len(NAMES)))))
    return paint_scene(width, height, rectangles)


def colour_model(
    width: int = 320,
    height: int = 192,
    batch: int | None = 1,
    names: Sequence[str] | None = NAMES,
    fault: str = "",
    opset: int = 17,
    float16: bool = False,
) -> onnx.ModelProto:
    """The raw export.

    Args:
        width, height: of the network input, multiples of 8.
        batch: fixed, or None for a dynamic batch axis.
        names: the metadata's class names, at most as many as there are `COLOURS`; None for four classes and no names.
        fault: where NaN appears for an image with a pixel of `FAULT_COLOUR`: "predictions", "prototypes", or "".
        opset: 13 or later.
        float16: whether input and outputs are float16.

    Returns:
        A model that takes `images` `[B, 3, height, width]`, RGB from 0 to 1, and returns `output0`
        `[B, 4 + classes + 32, height / 8 * width / 8]` and `output1` `[B, 32, height / 4, width / 4]`.
    """
    if width % STRIDE or height % STRIDE:
        raise ValueError(f"width and height must be multiples of {STRIDE}, got {width} x {height}")
    count = len(NAMES if names is None else names)
    if not 1 <= count <= len(COLOURS):
        raise ValueError(f"1 to {len(COLOURS)} classes, got {count}")
    nodes = _Nodes()
    image = nodes("Cast", "images", to=TensorProto.FLOAT)
    similarity = _similarity(nodes, image, count)
    boxes, scores, classes = _cells(nodes, similarity, count, width, height)
    prototypes = _prototypes(nodes, similarity, count)
    cells = (height // STRIDE) * (width // STRIDE)
    # A cell's coefficients choose the prototype of its class.
    coefficients = nodes("Pad", classes, nodes.integers([0, 0, 0, 0, PROTOTYPES - count, 0]))
    outputs = {"output0": nodes("Concat", boxes, scores, coefficients, axis=1), "output1": prototypes}
    if fault:
        faulty = {"predictions": "output0", "prototypes": "output1"}[fault]
        outputs[faulty] = nodes("Add", outputs[faulty], _fault(nodes, image, rank=3 if fault == "predictions" else 4))
    element = TensorProto.FLOAT16 if float16 else TensorProto.FLOAT
    for name, value in outputs.items():
        nodes("Cast", value, output=name, to=element)

    first = "batch" if batch is None else batch
    shapes = {
        "output0": [first, 4 + count + PROTOTYPES, cells],
        "output1": [first, PROTOTYPES, height // MASK_STRIDE, width // MASK_STRIDE],
    }
    graph = helper.make_graph(
        nodes.nodes,
        "colours",
        [helper.make_tensor_value_info("images", element, [first, 3, height, width])],
        [helper.make_tensor_value_info(name, element, shape) for name, shape in shapes.items()],
        nodes.initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    if names is not None:
        helper.set_model_props(model, {"names": repr(dict(enumerate(names))), "task": "segment"})
    onnx.checker.check_model(model, full_check=True)
    return model


def save_colour_model(path: Path, **options: Any) -> Path:
    """Write the raw export; see `colour_model` for the options."""
    path.write_bytes(colour_model(**options).SerializeToString())
    return path


def save_canonical_colour_model(path: Path, **options: Any) -> Path:
    """Write the canonical model made from it; see `colour_model` for the options."""
    from seg_perception.offboard.toolchain.prepare import PrepareOptions, prepare

    source = save_colour_model(path.with_suffix(".raw.onnx"), **options)
    # A fixed batch would be opened otherwise.
    prepare(source, path, PrepareOptions(batch=options.get("batch")))
    source.unlink()
    return path


class _Nodes:
    """Collects nodes and constants; a call appends a node and returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def __call__(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=f"node_{output}", **attributes))
        return output

    def constant(self, values: object) -> str:
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def floats(self, values: object) -> str:
        return self.constant(np.asarray(values, np.float32))

    def integers(self, values: object) -> str:
        return self.constant(np.asarray(values, np.int64))

    def every(self, value: str, axis: int) -> str:
        """Of `[B, C, H, W]`, the row or column right behind the middle of each cell."""
        end = self.integers([np.iinfo(np.int64).max])
        return self("Slice", value, self.integers([STRIDE // 2]), end, self.integers([axis]), self.integers([STRIDE]))


def _similarity(nodes: _Nodes, image: str, count: int) -> str:
    """`[B, C, H, W]`: 1 at a class's own colour, 0 at the background, linear between and beyond."""
    planes = []
    for colour in COLOURS[:count]:
        reference = nodes.floats(np.reshape(colour, (1, 3, 1, 1)) / 255)
        distance = nodes("ReduceSum", nodes("Abs", nodes("Sub", image, reference)), nodes.integers([1]))
        planes.append(nodes("Sub", nodes.floats(1), nodes("Div", distance, nodes.floats(_CHANNEL_SUM))))
    return nodes("Concat", *planes, axis=1)


def _prototypes(nodes: _Nodes, similarity: str, count: int) -> str:
    """`[B, 32, H / 4, W / 4]`: logits of each class's colour; those without a class are 0."""
    size = [MASK_STRIDE, MASK_STRIDE]
    mean = nodes("AveragePool", similarity, kernel_shape=size, strides=size)
    logits = nodes("Mul", nodes("Sub", mean, nodes.floats(0.5)), nodes.floats(MASK_GAIN))
    return nodes("Pad", logits, nodes.integers([0, 0, 0, 0, 0, PROTOTYPES - count, 0, 0]))


def _cells(nodes: _Nodes, similarity: str, count: int, width: int, height: int) -> tuple[str, str, str]:
    """Boxes `[B, 4, N]`, scores `[B, C, N]` and whether a cell is of a class `[B, C, N]`."""
    inside = nodes("Cast", nodes("Greater", similarity, nodes.floats(0.5)), to=TensorProto.FLOAT)
    # How far the class of each cell extends: pixels from its own, including it, in each direction. Only the rows and
    # columns of cells matter. A pixel is of one class at most, so the sum over classes is that class's.
    across = nodes.every(inside, 2)
    down = nodes.every(inside, 3)
    extents = {
        name: nodes("ReduceSum", nodes.every(_run(nodes, lines, axis, forward, length), axis), nodes.integers([1]))
        for name, lines, axis, forward, length in (
            ("left", across, 3, False, width),
            ("right", across, 3, True, width),
            ("top", down, 2, False, height),
            ("bottom", down, 2, True, height),
        )
    }
    rows, columns = height // STRIDE, width // STRIDE
    x, y = np.meshgrid(np.arange(columns) * STRIDE + STRIDE // 2, np.arange(rows) * STRIDE + STRIDE // 2)
    sides = []
    for before, after, position in (("left", "right", x), ("top", "bottom", y)):
        # An extent of k pixels to the left of and including pixel p starts at p + 1 - k; to the right it ends at p + k.
        start = nodes("Sub", nodes.floats(position[None, None] + 1), extents[before])
        end = nodes("Add", nodes.floats(position[None, None]), extents[after])
        sides.append((start, end))
    halves = nodes.floats(0.5)
    centres = [nodes("Mul", nodes("Add", start, end), halves) for start, end in sides]
    # Where there is no class, both extents are 0 and the box would have a size of -1.
    lengths = [nodes("Relu", nodes("Sub", end, start)) for start, end in sides]
    boxes = nodes("Reshape", nodes("Concat", *centres, *lengths, axis=1), nodes.integers([0, 4, -1]))

    at_cells = nodes.every(across, 3)
    scores = nodes("Mul", at_cells, _confidence(nodes, extents, rows, columns))
    flat = nodes.integers([0, count, -1])
    return boxes, nodes("Reshape", scores, flat), nodes("Reshape", at_cells, flat)


def _confidence(nodes: _Nodes, extents: dict[str, str], rows: int, columns: int) -> str:
    """`[B, 1, rows, columns]` from 0.6 to 0.95: highest at a rectangle's middle, never twice the same by design."""
    ratios = []
    for before, after in (("left", "right"), ("top", "bottom")):
        least = nodes("Min", extents[before], extents[after])
        most = nodes("Max", nodes("Max", extents[before], extents[after]), nodes.floats(1))
        ratios.append(nodes("Div", least, most))
    central = nodes("Mul", nodes("Mul", *ratios), nodes.floats(0.3))
    # Equal rectangles would have equal scores, and the order of equal scores is up to the runtime.
    order = nodes.floats(np.linspace(0.65, 0.6, rows * columns).reshape(1, 1, rows, columns))
    return nodes("Add", central, order)


def _run(nodes: _Nodes, inside: str, axis: int, forward: bool, length: int) -> str:
    """How many ones in a row there are from each pixel on, itself included, along `axis`.

    Doubles the length looked at: as far as 2 k = as far as k, and if that is all k, then as far as k from there.
    """
    run, reach = inside, 1
    while reach < length:
        complete = nodes("Cast", nodes("Greater", run, nodes.floats(reach - 0.5)), to=TensorProto.FLOAT)
        run = nodes("Add", run, nodes("Mul", complete, _shifted(nodes, run, axis, reach if forward else -reach)))
        reach *= 2
    return run


def _shifted(nodes: _Nodes, value: str, axis: int, distance: int) -> str:
    """`[B, C, H, W]` whose element i is element i + distance of `value`, 0 beyond the border."""
    pads = np.zeros((2, 4), np.int64)
    pads[int(distance > 0), axis] = abs(distance)
    padded = nodes("Pad", value, nodes.integers(pads.ravel()))
    start, end = (distance, np.iinfo(np.int64).max) if distance > 0 else (0, distance)
    return nodes("Slice", padded, nodes.integers([start]), nodes.integers([end]), nodes.integers([axis]))


def _fault(nodes: _Nodes, image: str, rank: int) -> str:
    """NaN `[B, 1, ...]` of this rank for each image with a pixel of `FAULT_COLOUR`, otherwise 0."""
    missing = nodes("ReduceSum", nodes("Sub", nodes.floats(1), image), nodes.integers([1]))
    white = nodes("Cast", nodes("Less", missing, nodes.floats(0.5 / 255)), to=TensorProto.FLOAT)
    count = nodes(
        "Reshape", nodes("ReduceSum", white, nodes.integers([1, 2, 3])), nodes.integers([0] + [1] * (rank - 1))
    )
    return nodes("Where", nodes("Greater", count, nodes.floats(0.5)), nodes.floats(np.nan), nodes.floats(0))
